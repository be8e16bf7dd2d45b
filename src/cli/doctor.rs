//! `doctor`: looks at everything that a worker needs, and says of each thing whether it is sound and what to do if not.
//!
//! What must hold: nothing is written but what any command writes, no key is used, each check has a deadline, and one that fails
//! stops no other.

mod checks;

use std::{path::Path, time::Duration};

use serde::Serialize;
use serde_json::json;

use super::{
    Verdict,
    output::{BOLD, DIM, GREEN, Output, RED, YELLOW},
    wiring::Wiring,
};

/// How long a check may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// It could not be looked at, because of another that failed.
    LeftOut,
    Ok,
    Warning,
    Failed,
}

/// What was found of a thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    state: State,
    sentence: String,
    /// What to do.
    way_out: Option<String>,
}

impl Finding {
    fn new(check: &'static str, state: State, sentence: impl Into<String>) -> Self {
        Self {
            check,
            state,
            sentence: sentence.into(),
            way_out: None,
        }
    }

    fn ok(check: &'static str, sentence: impl Into<String>) -> Self {
        Self::new(check, State::Ok, sentence)
    }

    fn warning(check: &'static str, sentence: impl Into<String>) -> Self {
        Self::new(check, State::Warning, sentence)
    }

    fn failed(check: &'static str, sentence: impl Into<String>) -> Self {
        Self::new(check, State::Failed, sentence)
    }

    fn left_out(check: &'static str, why: &str) -> Self {
        Self::new(check, State::LeftOut, why)
    }

    fn way_out(mut self, way_out: impl Into<String>) -> Self {
        self.way_out = Some(way_out.into());
        self
    }
}

/// Looks at one thing after the other, telling of each at once.
pub(super) async fn doctor(path: Option<&Path>, output: &Output) -> anyhow::Result<Verdict> {
    let mut told = Told {
        findings: Vec::new(),
        output,
    };
    match Wiring::load(path) {
        Ok(wiring) => examine(&wiring, &mut told).await?,
        Err(error) => {
            told.tell(
                Finding::failed(checks::CONFIGURATION, format!("{error:#}"))
                    .way_out("'catalog-sync check-config' tells the same; worker.toml of the repository explains each key"),
            )?;
            for check in checks::AFTER_CONFIGURATION {
                told.tell(Finding::left_out(check, "it needs a sound configuration"))?;
            }
        }
    }
    let Told { findings, .. } = told;
    output.json(&json!({ "version": env!("CARGO_PKG_VERSION"), "checks": findings }))?;
    let count = |state| findings.iter().filter(|it| it.state == state).count();
    let (failed, warnings) = (count(State::Failed), count(State::Warning));
    output.say(match (failed, warnings) {
        (0, 0) => format!("{GREEN}All is sound.{GREEN:#}"),
        (0, warnings) => format!("{YELLOW}Nothing failed; warnings: {warnings}.{YELLOW:#}"),
        (failed, warnings) => format!("{RED}Failed: {failed}; warnings: {warnings}.{RED:#}"),
    })?;
    Ok(if failed > 0 {
        Verdict::Failed
    } else {
        Verdict::Done
    })
}

async fn examine(wiring: &Wiring, told: &mut Told<'_>) -> anyhow::Result<()> {
    told.tell(checks::configuration(&wiring.config))?;
    let mut store = None;
    let database = async {
        let (opened, findings) = checks::database(wiring).await;
        store = opened;
        findings
    };
    told.bounded(checks::DATABASE, database).await?;
    let store = store.as_deref();
    told.bounded(checks::MASTER_KEYS, checks::master_keys(wiring, store))
        .await?;
    match wiring.queues() {
        Ok(queues) if queues.is_empty() => {
            told.tell(Finding::ok(checks::BROKERS, "none is set up"))?;
        }
        Ok(queues) => {
            for queue in queues {
                told.bounded(checks::BROKERS, checks::broker(&*queue))
                    .await?;
            }
        }
        Err(error) => told.tell(Finding::failed(checks::BROKERS, format!("{error:#}")))?,
    }
    told.bounded(checks::APPLE, checks::apple(wiring)).await?;
    if let Some(store) = store {
        told.bounded(checks::DAEMONS, checks::daemons(store))
            .await?;
        return told
            .bounded(checks::PROJECTS, checks::projects(wiring, store))
            .await;
    }
    for check in [checks::DAEMONS, checks::PROJECTS] {
        told.tell(Finding::left_out(check, "it needs a sound database"))?;
    }
    Ok(())
}

/// What was found so far, each told as soon as it was.
struct Told<'a> {
    findings: Vec<Finding>,
    output: &'a Output,
}

impl Told<'_> {
    async fn bounded(
        &mut self,
        check: &'static str,
        work: impl Future<Output = Vec<Finding>>,
    ) -> anyhow::Result<()> {
        let findings = tokio::time::timeout(DEADLINE, work).await;
        for finding in findings.unwrap_or_else(|_| {
            let seconds = DEADLINE.as_secs();
            vec![Finding::failed(
                check,
                format!("no answer within {seconds} s"),
            )]
        }) {
            self.tell(finding)?;
        }
        Ok(())
    }

    fn tell(&mut self, finding: Finding) -> anyhow::Result<()> {
        let state = match finding.state {
            State::Ok => format!("{GREEN}ok      {GREEN:#}"),
            State::Warning => format!("{YELLOW}warning {YELLOW:#}"),
            State::Failed => format!("{RED}failed  {RED:#}"),
            State::LeftOut => format!("{DIM}left out{DIM:#}"),
        };
        let Finding {
            check, sentence, ..
        } = &finding;
        // The configuration tells its faults in lines.
        let sentence = sentence.replace('\n', "\n          ");
        self.output
            .say(format_args!("{state}  {BOLD}{check}{BOLD:#}: {sentence}"))?;
        if let Some(way_out) = &finding.way_out {
            self.output.say(format_args!("          -> {way_out}"))?;
        }
        self.findings.push(finding);
        Ok(())
    }
}
