//! What a run costs the whole worker, beside what fetching the same pages costs the same HTTP client.
//!
//! The worker is the real binary over a real database. App Store Connect is the simulator, in a process of its own, so that its
//! processor time is known apart. The **bare fetch** is a process too: it sends the very requests that the worker sent, with the
//! same client, as many at once, and drops the bodies. Worker and bare fetch take turns, so that a noisy machine slows both.
//!
//! What is printed as a ratio holds on any machine; what is printed in milliseconds holds on this one.
//! `cargo bench --bench fleet -- --help` tells what can be set.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a program that prints figures to be read"
)]

mod bare;
mod place;
mod postgres;
mod process;
mod report;
mod upstream;
mod worker;

use clap::{Parser, Subcommand};

use self::{
    bare::Fetched,
    place::{Backend, Place},
    report::Report,
    upstream::Upstream,
    worker::{Round, Worker},
};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    size: Size,
    /// The stores to measure
    #[arg(long, value_delimiter = ',', default_value = "sqlite,postgres")]
    store: Vec<Backend>,
    /// How App Store Connect is reached
    #[arg(long, value_delimiter = ',', default_value = "http,https")]
    scheme: Vec<String>,
    /// How often all projects are synced again, unchanged
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many projects are synced at once
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// How many projects there are, and what each of them has.
#[derive(clap::Args, Clone)]
struct Size {
    #[arg(long, default_value_t = 500)]
    projects: usize,
    /// In-app purchases of a project
    #[arg(long, default_value_t = 100)]
    purchases: usize,
    /// Subscription groups of a project
    #[arg(long, default_value_t = 10)]
    groups: usize,
    /// Subscriptions of a group
    #[arg(long, default_value_t = 20)]
    subscriptions: usize,
    /// How long App Store Connect takes to answer, in milliseconds
    #[arg(long, default_value_t = 0)]
    latency: u64,
}

/// What this program is when it starts itself again.
#[derive(Subcommand)]
enum Role {
    /// App Store Connect, until standard input ends.
    Upstream(upstream::Arguments),
    /// The bare fetch, once for each line of standard input.
    Bare(bare::Arguments),
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match &arguments.role {
            Some(Role::Upstream(given)) => upstream::serve(given).await,
            Some(Role::Bare(given)) => bare::fetch(given).await,
            None => measure(&arguments).await,
        }
    })
}

async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let size = &arguments.size;
    println!(
        "{} projects with {} in-app purchases and {} groups of {} subscriptions each, {} at once, {} ms of latency, {} rounds",
        size.projects,
        size.purchases,
        size.groups,
        size.subscriptions,
        arguments.concurrency,
        size.latency,
        arguments.rounds,
    );
    let mut report = Report::default();
    for &backend in &arguments.store {
        for scheme in &arguments.scheme {
            let upstream = Upstream::start(size, scheme == "https")?;
            let place = Place::new(backend, size, &upstream).await?;
            let mut worker = Worker::start(&place, &upstream, arguments.concurrency)?;
            let cold = worker.finish(&place, &upstream, size.projects)?;
            let mut bare = bare::Fetcher::start(&upstream, size, arguments.concurrency).await?;
            let name = format!("{}, {scheme}", backend.name());
            report.row(&name, "cold", &cold, None);
            // The first fetch opens connections, as the cold round did.
            bare.fetch()?;
            // A process's time is counted in ticks of 10 ms: one round alone would be told too coarsely.
            let (mut again, mut fetched) = (Round::default(), Fetched::default());
            for _ in 0..arguments.rounds {
                fetched += bare.fetch()?;
                place.ask_for_all().await?;
                again += worker.finish(&place, &upstream, size.projects)?;
            }
            report.row(&name, "unchanged", &again, Some(&fetched));
            worker.stop()?;
        }
    }
    report.print();
    Ok(())
}
