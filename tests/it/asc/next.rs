//! URLs that a server hands out: which are followed, and that nobody else is ever connected to.

use catalog_sync::asc::Astray;
use serde_json::Value;

use super::*;
use crate::raw::{Foreign, Raw, Script};

/// What becomes of a link to the next page.
#[derive(Debug, PartialEq)]
enum Becomes {
    Followed,
    TheEnd,
    /// It is another origin.
    Foreign,
    /// It carries a user or a password.
    User,
    /// It leaves the API.
    Outside,
    NoUrl,
    TooLong,
    Circle,
    /// The page is not one.
    Unreadable,
}
use Becomes::{Circle, Followed, NoUrl, Outside, TheEnd, TooLong, Unreadable, User};

/// Reads a listing whose first page has this link, and whose second page is the last.
async fn read_with(simulator: &Simulator, next: &Value) -> Becomes {
    simulator.clear_faults();
    simulator.forget_requests();
    let page = |id: &str| json!({ "data": [{ "type": "inAppPurchases", "id": id }] });
    let mut first = page("1");
    first["links"] = json!({ "next": next });
    // What cannot be read is asked for four times.
    let times = if next.is_string() || next.is_null() {
        1
    } else {
        4
    };
    simulator.inject(Fault::new("", FaultKind::Body(first.to_string())).times(times));
    simulator.inject(Fault::new("", FaultKind::Body(page("2").to_string())));
    let (session, _) = session(simulator);
    let listed = session.fetch_in_app_purchases(APP).await;
    let sent = simulator.requests().len();
    let error = match listed {
        Ok(entries) => {
            assert_eq!(entries.len(), sent, "a page for each request");
            return if sent == 1 { TheEnd } else { Followed };
        }
        Err(error) => error,
    };
    let told = error.diagnosis(session.identity());
    assert_eq!(told.code, Code::UpstreamUnexpected);
    assert!(told.sentence.chars().count() < 400, "{told}");
    assert_eq!(sent, times, "{error}");
    match error.failure {
        Failure::Astray(Astray::Origin(_)) => Becomes::Foreign,
        Failure::Astray(Astray::User) => User,
        Failure::Astray(Astray::Path) => Outside,
        Failure::Astray(Astray::NotUrl) => NoUrl,
        Failure::Astray(Astray::Long) => TooLong,
        Failure::Astray(Astray::Circle) => Circle,
        Failure::Unexpected(_) => Unreadable,
        failure => panic!("{failure:?}"),
    }
}

/// Listeners at every address that could be taken for the simulator's.
async fn listeners(simulator: &Simulator) -> Vec<Foreign> {
    let port = Url::parse(simulator.base_url()).unwrap().port().unwrap();
    let mut listeners = Vec::new();
    for address in [
        "127.0.0.1:0".to_owned(),
        format!("127.0.0.2:{port}"),
        format!("[::1]:{port}"),
        "[::1]:0".to_owned(),
    ] {
        match Foreign::at(&address).await {
            Some(foreign) => listeners.push(foreign),
            None => println!("skipped: this machine has no {address}"),
        }
    }
    listeners
}

async fn nobody_came(listeners: &[Foreign]) {
    for foreign in listeners {
        assert_eq!(foreign.connections().await, 0, "{}", foreign.address);
    }
    // They count who is let through.
    for foreign in listeners {
        let url = format!("http://{}/v1/apps", foreign.address);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        assert!(client.get(url).send().await.is_err());
        assert!(foreign.connections().await > 0, "{}", foreign.address);
    }
}

#[tokio::test]
async fn the_token_goes_nowhere_but_home() {
    let simulator = serving(app()).await;
    let listeners = listeners(&simulator).await;
    let base = simulator.base_url();
    let home = base.strip_prefix("http://").unwrap();
    let port = home.strip_prefix("127.0.0.1:").unwrap();
    let path = format!("/v1/apps/{APP}/inAppPurchasesV2?cursor=AB");
    let mut forms = 0;
    for foreign in &listeners {
        let it = foreign.address.to_string();
        let hostile = [
            // Plainly elsewhere.
            (format!("http://{it}{path}"), Becomes::Foreign),
            (format!("https://{it}{path}"), Becomes::Foreign),
            (format!("ws://{it}{path}"), Becomes::Foreign),
            (format!("ftp://{it}{path}"), Becomes::Foreign),
            // What looks like home stands before or behind the host.
            (format!("http://{home}@{it}{path}"), Becomes::Foreign),
            (format!("http://user:{home}@{it}{path}"), Becomes::Foreign),
            (format!("http://{it}/{base}{path}"), Becomes::Foreign),
            (format!("http://{it}?{base}{path}"), Becomes::Foreign),
            (format!("http://{it}#{base}{path}"), Becomes::Foreign),
            (format!("http://{it}\\@{home}{path}"), Becomes::Foreign),
            (format!("http://{home}%40{it}{path}"), NoUrl),
            (
                format!("http://{home}@{it}\\@{home}{path}"),
                Becomes::Foreign,
            ),
            // What a URL's reader takes out or turns around.
            (format!("ht\ttp://{it}{path}"), Becomes::Foreign),
            (format!("http:\n//{it}{path}"), Becomes::Foreign),
            (format!(" \u{1}http://{it}{path}\u{0} "), Becomes::Foreign),
            (format!("http:\\\\{it}{path}"), Becomes::Foreign),
            (format!("http:/{it}{path}"), Becomes::Foreign),
            (format!("http:{it}{path}"), Becomes::Foreign),
            (format!("http:////{it}{path}"), Becomes::Foreign),
            (format!("HTTP://{it}{path}"), Becomes::Foreign),
            // Without a scheme.
            (format!("//{it}{path}"), NoUrl),
            (format!("///{it}{path}"), NoUrl),
            (format!("\\\\{it}{path}"), NoUrl),
            // Other schemes that hold a URL.
            (format!("blob:http://{it}{path}"), Becomes::Foreign),
            (format!("view-source:http://{it}{path}"), Becomes::Foreign),
        ];
        forms += hostile.len();
        for (next, becomes) in hostile {
            assert_eq!(
                read_with(&simulator, &json!(next)).await,
                becomes,
                "{next:?}"
            );
        }
    }
    let other = listeners[0].address.port();
    let forms_of_v4 = [
        (format!("http://localhost:{other}{path}"), Becomes::Foreign),
        (format!("http://localhost:{port}{path}"), Becomes::Foreign),
        (format!("http://LOCALHOST.:{port}{path}"), Becomes::Foreign),
        (format!("http://[::1]:{port}{path}"), Becomes::Foreign),
        (
            format!("http://[::ffff:127.0.0.1]:{port}{path}"),
            Becomes::Foreign,
        ),
        (
            format!("http://[::ffff:127.0.0.1]:{other}{path}"),
            Becomes::Foreign,
        ),
        (format!("http://0:{port}{path}"), Becomes::Foreign),
        (format!("http://0x7f.1:{other}{path}"), Becomes::Foreign),
        (format!("http://2130706433:{other}{path}"), Becomes::Foreign),
        (format!("http://127.0.0.1.:{other}{path}"), Becomes::Foreign),
        (
            format!("http://127\u{3002}0\u{3002}0\u{3002}1:{other}{path}"),
            Becomes::Foreign,
        ),
        (
            format!("http://\u{ff4c}ocalhost:{other}{path}"),
            Becomes::Foreign,
        ),
        (
            format!("http://%31%32%37.0.0.1:{other}{path}"),
            Becomes::Foreign,
        ),
        (
            format!("http://%6cocalhost:{other}{path}"),
            Becomes::Foreign,
        ),
        (
            format!("http://127.0.0.1.example:{port}{path}"),
            Becomes::Foreign,
        ),
        (format!("http://127.0.0.1{path}"), Becomes::Foreign),
        (format!("http://127.0.0.1:{port}{other}{path}"), NoUrl),
    ];
    forms += forms_of_v4.len();
    for (next, becomes) in forms_of_v4 {
        assert_eq!(
            read_with(&simulator, &json!(next)).await,
            becomes,
            "{next:?}"
        );
    }
    assert!(forms >= 40, "{forms}");
    println!("{forms} hostile links, {} listeners", listeners.len());
    nobody_came(&listeners).await;
}

#[tokio::test]
async fn a_link_that_stays_home_is_followed_within_the_api_alone() {
    let simulator = serving(app()).await;
    let base = simulator.base_url();
    let home = base.strip_prefix("http://").unwrap();
    let port = home.strip_prefix("127.0.0.1:").unwrap();
    let list = format!("/v1/apps/{APP}/inAppPurchasesV2");
    let long = |length: usize| {
        let start = format!("{base}{list}?cursor=");
        let rest = "A".repeat(length - start.len());
        start + &rest
    };
    let cases = [
        (json!(format!("{base}{list}?cursor=AB")), Followed),
        (json!(format!("{base}{list}?cursor=AB#fragment")), Followed),
        (json!(format!("HTTP://{home}{list}?cursor=AB")), Followed),
        (json!(format!("{base}/v2/apps?cursor=AB")), Followed),
        (json!(format!("{base}/v3/apps?cursor=AB")), Followed),
        // Another app's list is this server's word as much as this one's: what comes is checked.
        (
            json!(format!("{base}/v1/apps/2/inAppPurchasesV2?cursor=AB")),
            Followed,
        ),
        // Other ways to write this very origin.
        (
            json!(format!("http://127.0.0.1.:{port}{list}?cursor=AB")),
            Followed,
        ),
        (
            json!(format!("http://0x7f.1:{port}{list}?cursor=AB")),
            Followed,
        ),
        (
            json!(format!(
                "http://\u{ff11}27\u{3002}0.0.1:{port}{list}?cursor=AB"
            )),
            Followed,
        ),
        (json!(format!("http:\\\\{home}{list}?cursor=AB")), Followed),
        (json!(format!("http://@{home}{list}?cursor=AB")), Followed),
        (json!(format!("http://user@{home}{list}?cursor=AB")), User),
        (
            json!(format!("http://user:word@{home}{list}?cursor=AB")),
            User,
        ),
        (json!(format!("http://:word@{home}{list}?cursor=AB")), User),
        (
            json!(format!("https://{home}{list}?cursor=AB")),
            Becomes::Foreign,
        ),
        (json!(base), Outside),
        (json!(format!("{base}/")), Outside),
        (json!(format!("{base}/v1")), Outside),
        (json!(format!("{base}/v9/apps?cursor=AB")), Outside),
        (json!(format!("{base}/V1/apps?cursor=AB")), Outside),
        (json!(format!("{base}/login?next=/v1/apps")), Outside),
        (json!(format!("{base}/v1/../login")), Outside),
        (json!(format!("{base}/v1/../v9/apps")), Outside),
        (json!(format!("{base}/v1/%2e%2E/login")), Outside),
        (json!(format!("{base}/v1\\..\\login")), Outside),
        (json!(format!("{base}/v1/..%2flogin")), Outside),
        (json!(format!("{base}/v1/..%5Clogin")), Outside),
        (json!(format!("{base}//v1/apps")), Outside),
        (json!(format!("{base}/v1/../v1/apps?cursor=AB")), Followed),
        (json!(list), NoUrl),
        (json!("?cursor=AB"), NoUrl),
        (json!("AB"), NoUrl),
        (json!("http://"), NoUrl),
        (json!("http://["), NoUrl),
        (json!("javascript:fetch('/v1/apps')"), Becomes::Foreign),
        (json!("data:application/json,{}"), Becomes::Foreign),
        (json!("file:///v1/apps"), Becomes::Foreign),
        (json!("mailto:a@example.com"), Becomes::Foreign),
        (json!(long(Astray::LONGEST_LINK)), Followed),
        (json!(long(Astray::LONGEST_LINK + 1)), TooLong),
        (json!("h".repeat(15 << 20)), TooLong),
        (json!(""), TheEnd),
        (json!(null), TheEnd),
        (json!(7), Unreadable),
        (json!(true), Unreadable),
        (
            json!([format!("{base}{list}?cursor=AB"), "a second"]),
            Unreadable,
        ),
        (
            json!({ "href": format!("{base}{list}?cursor=AB") }),
            Unreadable,
        ),
    ];
    for (next, becomes) in cases {
        let shown: String = next.to_string().chars().take(100).collect();
        assert_eq!(read_with(&simulator, &next).await, becomes, "{shown}");
    }
}

#[tokio::test]
async fn a_page_that_was_read_is_not_read_again() {
    let simulator = serving(app()).await;
    let list = format!("{}/v1/apps/{APP}/inAppPurchasesV2", simulator.base_url());
    let page = |id: usize, next: &str| json!({ "data": [{ "type": "inAppPurchases", "id": id.to_string() }], "links": { "next": next } });
    // The second page leads to itself; the third leads to the second.
    for cursors in [&["A", "A"][..], &["A", "B", "A"]] {
        simulator.clear_faults();
        for (id, cursor) in cursors.iter().enumerate() {
            let body = page(id, &format!("{list}?cursor={cursor}")).to_string();
            simulator.inject(Fault::new("", FaultKind::Body(body)).times(1));
        }
        let (session, meter) = session(&simulator);
        let error = session.fetch_in_app_purchases(APP).await.unwrap_err();
        let is_circle = matches!(error.failure, Failure::Astray(Astray::Circle));
        assert!(is_circle, "{error}");
        assert_eq!(requests(&meter), cursors.len() as u64);
    }
    let (session, meter) = session(&simulator);
    simulator.clear_faults();
    simulator.inject(Fault::new("", FaultKind::SelfNext));
    session.fetch_apps().await.unwrap_err();
    assert_eq!(requests(&meter), 1);
}

#[tokio::test]
async fn a_cursor_stays_a_cursor() {
    let simulator = serving(app()).await;
    let list = format!("{}/v1/apps/{APP}/inAppPurchasesV2", simulator.base_url());
    for (written, cursor) in [
        ("a%0d%0aX-Evil:%20y", "a\r\nX-Evil: y"),
        ("a\r\nX-Evil: y", "aX-Evil: y"),
        ("a%00b", "a\0b"),
    ] {
        let next = json!(format!("{list}?cursor={written}"));
        assert_eq!(read_with(&simulator, &next).await, Followed, "{written:?}");
        let sent = &simulator.requests()[1].query;
        let cursors: Vec<_> = sent.iter().filter(|(name, _)| name == "cursor").collect();
        assert_eq!(cursors, [&("cursor".to_owned(), cursor.to_owned())]);
    }
}

#[tokio::test]
async fn another_resource_than_the_one_listed_is_no_page() {
    let simulator = serving(app().with_in_app_purchases(1)).await;
    let first = json!({
        "data": [{ "type": "inAppPurchases", "id": "1" }],
        "links": { "next": format!("{}/v1/apps", simulator.base_url()) },
    });
    let second = json!({ "data": [{ "type": "apps", "id": "2" }] });
    simulator.inject(Fault::new("", FaultKind::Body(first.to_string())).times(1));
    simulator.inject(Fault::new("", FaultKind::Body(second.to_string())));
    let error = session(&simulator)
        .0
        .fetch_in_app_purchases(APP)
        .await
        .unwrap_err();
    let says_what =
        matches!(&error.failure, Failure::Unexpected(why) if why == "apps 2 stands in it");
    assert!(says_what, "{error}");
}

/// A session whose App Store Connect is a raw server, with the key of this simulator.
fn session_at(raw: &Raw, simulator: &Simulator) -> (Session, Arc<Meter>) {
    let options = Options {
        base_url: Url::parse(&format!("http://{}", raw.address)).unwrap(),
        ..options(simulator)
    };
    session_with(simulator, options)
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let simulator = serving(app()).await;
    let listeners = listeners(&simulator).await;
    for foreign in &listeners {
        for status in [300, 301, 302, 303, 304, 305, 307, 308] {
            let headers = format!(
                "location: http://{0}/v1/apps\r\ncontent-location: http://{0}/\r\nrefresh: 0; url=http://{0}/\r\ncontent-length: 0\r\n",
                foreign.address
            );
            let raw = Raw::serving(move || Script::answer(status, &headers, [])).await;
            let (session, meter) = session_at(&raw, &simulator);
            let error = session.fetch_apps().await.unwrap_err();
            let redirect =
                matches!(error.failure, Failure::Astray(Astray::Redirect(it)) if it == status);
            assert!(redirect, "{status}: {error}");
            let told = error.diagnosis(session.identity());
            assert_eq!(told.code, Code::UpstreamUnexpected);
            assert!(told.sentence.contains(&status.to_string()), "{told}");
            assert_eq!((requests(&meter), raw.heads().len()), (1, 1));
        }
    }
    nobody_came(&listeners).await;
}

#[tokio::test]
async fn no_other_url_in_an_answer_is_asked() {
    let simulator = serving(app()).await;
    let listeners = listeners(&simulator).await;
    for foreign in &listeners {
        let url = format!("http://{}/v1/apps", foreign.address);
        let links = json!({ "self": url, "related": url, "first": url, "last": url, "href": url });
        let mut with_next = links.clone();
        with_next["next"] = json!(url);
        let resource = json!({
            "type": "apps", "id": "1", "links": with_next,
            "attributes": { "url": url, "contentRightsDeclaration": url },
            "relationships": {
                "subscriptionGracePeriod": { "links": with_next, "data": null },
                "subscriptions": { "links": with_next, "data": [] },
            },
        });
        let body = json!({
            "data": [resource], "included": [resource], "links": links,
            "meta": { "next": url }, "jsonapi": { "profile": [url] }, "next": url,
        })
        .to_string();
        let headers = format!(
            "link: <{url}>; rel=\"next\"\r\nlocation: {url}\r\ncontent-location: {url}\r\nrefresh: 0; url={url}\r\n\
             alt-svc: h3=\"{0}\", h2=\"{0}\"\r\ncontent-type: application/json\r\n",
            foreign.address
        );
        let raw =
            Raw::serving(move || Script::answer(200, &headers, [body.clone().into_bytes()])).await;
        let (session, meter) = session_at(&raw, &simulator);
        assert_eq!(session.fetch_apps().await.unwrap().len(), 1);
        assert_eq!(requests(&meter), 1);
    }
    // A group's linkage that goes on elsewhere makes the group be read from its own path at home.
    let group = json!({
        "data": [{
            "type": "subscriptionGroups", "id": "1",
            "relationships": { "subscriptions": {
                "data": [], "links": { "next": format!("http://{}/v1/apps", listeners[0].address) },
            } },
        }],
    });
    simulator
        .inject(Fault::new("/subscriptionGroups", FaultKind::Body(group.to_string())).times(1));
    let list = json!({ "data": [] }).to_string();
    simulator.inject(Fault::new("/subscriptions", FaultKind::Body(list)));
    simulator.forget_requests();
    session(&simulator).0.fetch_groups(APP).await.unwrap();
    assert_eq!(
        simulator.requests()[1].path,
        "/v1/subscriptionGroups/1/subscriptions"
    );
    nobody_came(&listeners).await;
}
