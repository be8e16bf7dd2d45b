//! Asking for things that are not listed any more.

use std::collections::BTreeMap;

use futures_util::{FutureExt as _, StreamExt as _, stream};

use crate::{
    asc::{self, Failure, Session},
    catalog::{Answer, Answers, Catalog, Key, Kind},
    project::Project,
};

/// So many things are asked for at once. The key's own limits hold beside it.
const ASKED_AT_ONCE: usize = 8;

/// Asks for things by their own ids, until it is of no use; what could not be learned is left out.
pub(super) async fn ask(session: &Session, keys: Vec<Key>) -> Answers {
    let mut asked = stream::iter(keys)
        .map(|key| async move { (session.fetch_answer(&key).await, key) }.boxed())
        .buffer_unordered(ASKED_AT_ONCE);
    let mut answers = Answers::new();
    while let Some((answer, key)) = asked.next().await {
        match answer {
            Ok(answer) => drop(answers.insert(key, answer)),
            Err(error) => {
                tracing::debug!(
                    event = "absence.unknown",
                    endpoint = error.endpoint,
                    error.sentence = %error.failure,
                    "whether it is gone is not known yet"
                );
                if !is_about_the_thing(&error) {
                    break;
                }
                answers.insert(key, Answer::Unknown);
            }
        }
    }
    answers
}

/// Whether another thing may well be answered for.
fn is_about_the_thing(error: &asc::Error) -> bool {
    match error.failure {
        Failure::Forbidden { .. }
        | Failure::NotFound
        | Failure::Unexpected(_)
        | Failure::OverLimit(_)
        | Failure::Astray(_)
        | Failure::Torn(_) => true,
        Failure::NotAuthorized { .. }
        | Failure::AgreementMissing
        | Failure::RateLimited { .. }
        | Failure::Unavailable(_)
        | Failure::TimedOut(_)
        | Failure::Signing(_)
        | Failure::Stopped => false,
    }
}

/// Tells of listings that leave out what is there, when that is first seen.
pub(super) fn tell_refuted(answers: &Answers, project: &Project, local: &Catalog) {
    let mut there = BTreeMap::<Kind, Vec<&str>>::new();
    for (key, answer) in answers {
        let before = local.absent.get(key).and_then(|absence| absence.answer);
        if *answer == Answer::There && before != Some(Answer::There) {
            there
                .entry(key.kind)
                .or_default()
                .push(key.store_id.as_str());
        }
    }
    for (kind, ids) in there {
        tracing::warn!(
            event = "listing.refuted",
            project.id = %project.id,
            kind = %kind,
            count = ids.len(),
            first = ids.first(),
            "Apple's listing leaves out what Apple has; it is kept"
        );
    }
}
