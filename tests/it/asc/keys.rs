//! When the key is opened, and what comes of one that does not open any more.

use std::sync::atomic::{AtomicUsize, Ordering};

use catalog_sync::diagnosis::Diagnosis;

use super::*;

/// A session with a key that opens so many times, and how often it was opened.
fn session_opening(simulator: &Simulator, times: usize) -> (Session, Arc<AtomicUsize>) {
    let opened = Arc::new(AtomicUsize::new(0));
    let identity = credential(simulator, 0).identity();
    let der = credential(simulator, 0).private_key.der().to_vec();
    let count = Arc::clone(&opened);
    let open = move || match count.fetch_add(1, Ordering::Relaxed) {
        before if before < times => Ok(PrivateKey::from_der(&der).unwrap()),
        _ => Err(Diagnosis::new(Code::KeySealed, "It opens no more.")),
    };
    let signer = Signer::new(identity, open).unwrap();
    let client = Client::new(options(simulator)).unwrap();
    let session = client.session(signer, Arc::default(), Terms::on_demand());
    (session, opened)
}

#[tokio::test]
async fn a_key_is_opened_once_for_its_name_and_once_for_each_token() {
    let simulator = serving(app().with_in_app_purchases(1000)).await;
    let (session, opened) = session_opening(&simulator, usize::MAX);
    assert_eq!(opened.load(Ordering::Relaxed), 1);
    session.fetch_in_app_purchases(APP).await.unwrap();
    session.fetch_app(APP).await.unwrap();
    assert_eq!(opened.load(Ordering::Relaxed), 2);

    simulator.inject(Fault::new("", FaultKind::Unauthorized).times(1));
    session.fetch_app(APP).await.unwrap();
    assert_eq!(opened.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_key_that_opens_no_more_is_told_as_sealed_and_costs_no_request() {
    let simulator = serving(app()).await;
    let (session, opened) = session_opening(&simulator, 1);
    let error = session.fetch_app(APP).await.unwrap_err();
    let diagnosis = error.diagnosis(session.identity());
    assert_eq!(diagnosis.code, Code::KeySealed);
    assert_eq!(diagnosis.sentence, "It opens no more.");
    assert_eq!(diagnosis.endpoint, Some(format!("/v1/apps/{APP}")));
    assert_eq!(simulator.requests().len(), 0);
    assert_eq!(opened.load(Ordering::Relaxed), 2);
}
