//! TLS: which servers are spoken to, and by which version.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{io::AsyncReadExt as _, net::TcpListener};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    house::{Backend, House},
    raw::{Raw, Script},
};

/// A certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut ca = CertificateParams::default();
        ca.distinguished_name
            .push(DnType::CommonName, "An authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    /// A server with a certificate for this name, good between these years.
    fn acceptor(&self, name: &str, years: (i32, i32)) -> TlsAcceptor {
        let mut leaf = CertificateParams::new([name.to_owned()]).unwrap();
        leaf.not_before = date_time_ymd(years.0, 1, 1);
        leaf.not_after = date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().unwrap();
        let leaf = leaf.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

const GOOD: (i32, i32) = (2000, 4000);

async fn serving_over(tls: TlsAcceptor) -> Raw {
    Raw::over(Some(tls), || {
        Script::answer(200, "", [b"{\"data\":[]}".to_vec()])
    })
    .await
}

#[tokio::test]
async fn only_a_server_that_proves_its_name_is_sent_a_token() {
    let simulator = serving(app()).await;
    let (ours, other) = (Authority::new(), Authority::new());
    let cases = [
        ("as it should be", ours.acceptor("127.0.0.1", GOOD), true),
        (
            "of another authority",
            other.acceptor("127.0.0.1", GOOD),
            false,
        ),
        (
            "for another address",
            ours.acceptor("127.0.0.2", GOOD),
            false,
        ),
        ("for another name", ours.acceptor("localhost", GOOD), false),
        ("expired", ours.acceptor("127.0.0.1", (2000, 2001)), false),
        (
            "not good yet",
            ours.acceptor("127.0.0.1", (3999, 4000)),
            false,
        ),
    ];
    for (what, acceptor, trusted) in cases {
        let raw = serving_over(acceptor).await;
        for ca_pem in [Some(ours.pem()), None] {
            let trusted = trusted && ca_pem.is_some();
            let before = raw.heads().len();
            let options = Options {
                base_url: Url::parse(&format!("https://{}", raw.address)).unwrap(),
                ca_pem,
                ..options(&simulator)
            };
            let listed = session_with(&simulator, options).0.fetch_apps().await;
            assert_eq!(raw.heads().len() - before, usize::from(trusted), "{what}");
            match listed {
                Ok(_) => assert!(trusted, "{what}"),
                Err(error) => {
                    assert!(!trusted, "{what}: {error}");
                    let is_told = matches!(&error.failure, Failure::Unavailable(why) if why.contains("certificate"));
                    assert!(is_told, "{what}: {error}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_client_of_https_speaks_nothing_else() {
    let plain = serving(app()).await;
    let options = Options {
        base_url: Url::parse(&plain.base_url().replace("http://", "https://")).unwrap(),
        ..options(&plain)
    };
    let error = session_with(&plain, options)
        .0
        .fetch_apps()
        .await
        .unwrap_err();
    assert!(matches!(error.failure, Failure::Unavailable(_)), "{error}");
    assert_eq!(plain.requests(), []);
}

/// The versions that a client hello offers, by its extension 43 (RFC 8446, 4.2.1).
fn offered(hello: &[u8]) -> Vec<u16> {
    let number = |at: usize| usize::from(hello[at]) << 8 | usize::from(hello[at + 1]);
    assert_eq!((hello[0], hello[5]), (22, 1), "a client hello");
    let mut at = 5 + 4 + 2 + 32;
    at += 1 + usize::from(hello[at]); // session id
    at += 2 + number(at); // cipher suites
    at += 1 + usize::from(hello[at]); // compression
    let end = at + 2 + number(at);
    at += 2;
    while at < end {
        let (kind, length) = (number(at), number(at + 2));
        if kind == 43 {
            return hello[at + 5..at + 4 + length]
                .chunks(2)
                .map(|version| u16::from_be_bytes([version[0], version[1]]))
                .collect();
        }
        at += 4 + length;
    }
    Vec::new()
}

#[tokio::test]
async fn nothing_below_tls_1_2_is_offered() {
    let simulator = serving(app()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options {
        base_url: Url::parse(&format!("https://{}", listener.local_addr().unwrap())).unwrap(),
        ..options(&simulator)
    };
    let (session, _) = session_with(&simulator, options);
    let hello = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = vec![0; 5];
        stream.read_exact(&mut hello).await.unwrap();
        hello.resize(5 + usize::from(u16::from_be_bytes([hello[3], hello[4]])), 0);
        stream.read_exact(&mut hello[5..]).await.unwrap();
        hello
    };
    let hello = tokio::select! {
        hello = hello => hello,
        answered = session.fetch_apps() => panic!("{:?}", answered.err()),
    };
    assert_eq!(offered(&hello), [0x0304, 0x0303]);
}

/// Has the binary verify the project's key against this server, with these settings.
async fn verify(house: &House, variables: &[(&str, &str)]) -> String {
    let answer = house
        .run_with(&["project", "verify", "acme"], variables, "")
        .await
        .expect(1);
    answer.stderr
}

#[tokio::test]
async fn an_authority_that_is_configured_stands_instead_of_the_systems() {
    let mut house = House::with_project(State::with_app(app()), Backend::Sqlite).await;
    let (system, configured) = (Authority::new(), Authority::new());
    house.write("system.pem", system.pem());
    house.write("configured.pem", configured.pem());
    let system_file = house.path("system.pem");
    let systems = ("SSL_CERT_FILE", system_file.to_str().unwrap());
    let ours = ("CATALOG_SYNC_APP_STORE__CA_FILE", "configured.pem");
    for (server, variables, trusted) in [
        (&system, vec![systems], true),
        (&configured, vec![systems], false),
        (&configured, vec![systems, ours], true),
        (&system, vec![systems, ours], false),
    ] {
        let raw = serving_over(server.acceptor("127.0.0.1", GOOD)).await;
        house.point_to(&format!("https://{}", raw.address));
        let told = verify(&house, &variables).await;
        assert_eq!(!raw.heads().is_empty(), trusted, "{told}");
        assert_eq!(told.contains("certificate"), !trusted, "{told}");
    }
}

#[tokio::test]
async fn a_proxy_is_used_when_it_is_configured_and_not_when_the_environment_has_one() {
    let house = House::with_project(State::with_app(app()), Backend::Sqlite).await;
    let proxy = Raw::serving(|| Script::answer(502, "content-length: 0\r\n", [])).await;
    let url = format!("http://{}", proxy.address);
    let variables: Vec<_> = [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ]
    .map(|name| (name, url.as_str()))
    .to_vec();
    let sent = house.simulator.requests().len();
    house
        .run_with(&["project", "verify", "acme"], &variables, "")
        .await
        .expect(0);
    assert_eq!(proxy.heads(), Vec::<String>::new());
    assert!(house.simulator.requests().len() > sent);

    let sent = house.simulator.requests().len();
    let configured = ("CATALOG_SYNC_APP_STORE__PROXY", url.as_str());
    verify(&house, &[configured]).await;
    assert!(!proxy.heads().is_empty());
    assert_eq!(house.simulator.requests().len(), sent);
}
