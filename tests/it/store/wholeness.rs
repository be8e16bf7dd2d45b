//! A commit is whole or nothing, and costs the same however much it writes.

use std::{
    collections::HashMap,
    future::Future,
    pin::pin,
    sync::{LazyLock, Mutex},
    task::Poll,
};

use catalog_sync::{
    catalog::Catalog,
    run::Run,
    store::{Error, Removed, Store},
};
use futures_util::future::join;
use tracing::Instrument as _;
use tracing_subscriber::{
    EnvFilter, Layer, layer::Context, layer::SubscriberExt as _, registry::LookupSpan,
};
use uuid::Uuid;

use super::{
    commits::replay,
    sample::{
        Everything, add, aftermath, at, claim, coins, everything, grace_period, group, history,
        plan, run, snapshot, subscription, sync,
    },
};

pub(crate) async fn an_unchanged_catalog_writes_no_row(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let entries = [
        coins("1"),
        group("7", "Pro"),
        subscription("8", "7"),
        grace_period(),
    ];
    sync(store, &acme, 0, entries.clone()).await;
    let before = everything(store, &acme).await;

    let committed = sync(store, &acme, 5, entries).await;

    assert_eq!((committed.revision, committed.rows), (1, 0));
    let after = everything(store, &acme).await;
    assert_eq!(after.catalog, before.catalog);
    assert_eq!(after.history, before.history);
    assert_eq!(after.shelf.products, before.shelf.products);
    let checked = |all: &Everything| {
        let grace = all.shelf.grace_period.clone().unwrap();
        (grace.changed_at, grace.checked_at)
    };
    assert_eq!(checked(&before), (at(0), Some(at(0))));
    assert_eq!(checked(&after), (at(0), Some(at(5))));
    assert_eq!((before.runs.len(), after.runs.len()), (1, 2));
    assert_eq!(after.runs[0].revision, 1);
}

pub(crate) async fn ten_thousand_products_take_as_many_statements_as_one(store: &dyn Store) {
    let mut counted = Vec::new();
    for (name, products) in [("one", 1), ("many", 10_000)] {
        let project = add(store, name).await;
        let entries = (0..products).map(|number| coins(&number.to_string()));
        let plan = plan(&Catalog::default(), &snapshot(entries));
        let lease = claim(store, &project, 0).await;
        let run = run(&plan, 0);
        let after = aftermath();
        let commit = store.commit(&lease, &plan, &run, &after);
        let (committed, statements) = count_statements(commit).await;
        assert_eq!(committed.unwrap().rows, 2 * products);
        counted.push(statements);
        let catalog = store.load_catalog(&project).await.unwrap();
        assert_eq!(catalog.present.len() as u64, products);
    }
    assert_eq!(counted[0], counted[1]);
    // And on Postgres one more, for those who listen.
    assert!(
        [8, 9].contains(&counted[0]),
        "begin, state, run, what the key has left and its update, outbox, entries, log: {counted:?}"
    );
}

/// How many statements sqlx logs while the future runs. The last, COMMIT, is left out: SQLite's thread may log it late.
async fn count_statements<T>(work: impl Future<Output = T>) -> (T, usize) {
    static COUNTS: Mutex<Option<HashMap<u64, usize>>> = Mutex::new(None);

    struct Summary(bool);
    impl tracing::field::Visit for Summary {
        fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}

        fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
            self.0 |= field.name() == "summary" && value == "commit";
        }
    }

    struct Counter;
    impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Counter {
        fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
            let mut summary = Summary(false);
            event.record(&mut summary);
            let span = context.event_span(event);
            let Some(span) = span.filter(|span| span.name() == "counted" && !summary.0) else {
                return;
            };
            if event.metadata().target() == "sqlx::query" {
                let mut counts = COUNTS.lock().unwrap();
                let counts = counts.get_or_insert_default();
                *counts.entry(span.id().into_u64()).or_default() += 1;
            }
        }
    }

    // For all threads, as SQLite's statements run on their own.
    static INSTALLED: LazyLock<()> = LazyLock::new(|| {
        let filter = EnvFilter::new("off,sqlx::query=debug,it=info");
        let subscriber = tracing_subscriber::registry().with(Counter.with_filter(filter));
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
    LazyLock::force(&INSTALLED);

    let span = tracing::info_span!("counted");
    let id = span.id().expect("the span is recorded").into_u64();
    let done = work.instrument(span).await;
    let counts = COUNTS.lock().unwrap();
    let count = counts.as_ref().and_then(|counts| counts.get(&id));
    (done, count.copied().unwrap_or(0))
}

pub(crate) async fn a_violated_constraint_leaves_nothing_half_written(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let zenith = add(store, "zenith").await;
    sync(store, &acme, 0, [coins("1")]).await;
    let taken = store.read_runs(&acme, 1).await.unwrap()[0].run.id;
    let lease = claim(store, &zenith, 1).await;
    let before = everything(store, &zenith).await;
    let plan = plan(&before.catalog, &snapshot([coins("1"), coins("2")]));

    let again = Run {
        id: taken,
        ..run(&plan, 1)
    };
    let refused = store.commit(&lease, &plan, &again, &aftermath()).await;

    assert!(matches!(refused, Err(Error::Database(_))), "{refused:?}");
    assert_eq!(everything(store, &zenith).await, before);
    let fresh = Run {
        id: Uuid::now_v7(),
        ..again
    };
    let committed = store.commit(&lease, &plan, &fresh, &aftermath()).await;
    assert_eq!(committed.unwrap().rows, 4);
}

pub(crate) async fn a_dropped_commit_is_whole_or_nothing(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let mut whole = 0;
    for round in 0..40 {
        let before = store.load_catalog(&acme).await.unwrap();
        let revision = store.load_state(&acme).await.unwrap().revision;
        let entries = (0..5).map(|number| coins(&number.to_string()).with("round", round));
        let plan = plan(&before, &snapshot(entries));
        let lease = claim(store, &acme, i64::from(round)).await;
        let run = run(&plan, i64::from(round));
        let after = aftermath();
        {
            // Dropped after so many polls, wherever that is.
            let mut commit = pin!(store.commit(&lease, &plan, &run, &after));
            let mut polls = 0;
            std::future::poll_fn(|context| {
                polls += 1;
                if polls > round {
                    return Poll::Ready(());
                }
                commit.as_mut().poll(context).map(|done| {
                    done.unwrap();
                })
            })
            .await;
        }
        // Waits for what may still be under way.
        store.release(&lease).await.unwrap();

        let mut expected = before.clone();
        let now = store.load_state(&acme).await.unwrap().revision;
        if now > revision {
            whole += 1;
            expected.apply(plan.changes());
        }
        assert_eq!(store.load_catalog(&acme).await.unwrap(), expected);
        assert_eq!(replay(history(store, &acme).await), expected);
        let runs = store.read_runs(&acme, u32::MAX).await.unwrap();
        assert_eq!(runs.len(), whole);
    }
    // The first round is dropped before it begins.
    assert!((1..40).contains(&whole), "{whole} of 40");
}

pub(crate) async fn a_reader_sees_a_whole_commit_or_nothing(store: &dyn Store) {
    let acme = add(store, "acme").await;
    let entries = |round: i64| {
        let coins =
            (0..20).map(move |number| coins(&number.to_string()).with("name", round.to_string()));
        coins.chain([group("7", &round.to_string())])
    };
    sync(store, &acme, 0, entries(0)).await;
    let writing = async {
        for round in 1..15 {
            sync(store, &acme, round, entries(round)).await;
        }
    };
    let reading = async {
        let mut seen = 0;
        while seen < 14 {
            let shelf = store.read_shelf(&acme, Removed::LeftOut).await.unwrap();
            let group = shelf.subscription_groups[0].name.clone();
            assert_eq!(shelf.products.len(), 20);
            for product in shelf.products {
                assert_eq!(product.name, group);
            }
            seen = group.unwrap().parse::<i64>().unwrap();
        }
    };
    join(writing, reading).await;
}
