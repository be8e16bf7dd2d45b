//! `history`: what changed, and whether that is all.

use clap::Args;
use serde_json::{Value, json};

use super::{
    Verdict,
    output::{BOLD, DIM, GREEN, Output, RED, at, change_style, plain},
    parse_instant, progress,
};
use crate::{
    catalog::{
        Kind,
        log::{Contradiction, Proof},
    },
    clock::{self, Instant},
    project::ProjectId,
    store::{self, HistoryFilter, Store},
};

/// Which changes to show.
#[derive(Args)]
pub(super) struct HistoryArgs {
    /// The project
    id: ProjectId,
    /// Only this kind
    #[arg(
        long,
        value_name = "in_app_purchase|subscription_group|subscription|grace_period"
    )]
    kind: Option<Kind>,
    /// Only this product id, or Apple's id for what has no product id
    #[arg(long)]
    product: Option<String>,
    /// Only from this time on, such as 2026-11-01 or 2026-11-01T12:00Z
    #[arg(long, value_parser = parse_instant)]
    since: Option<Instant>,
    /// Only before this time
    #[arg(long, value_parser = parse_instant)]
    until: Option<Instant>,
    /// At most this many
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Show nothing of it, but verify that all changes together give the catalog; exits with 1 when they do not
    #[arg(long, conflicts_with_all = ["kind", "product", "since", "until", "limit"])]
    verify: bool,
}

/// Shows the change log, the newest first, or verifies it.
pub(super) async fn history(
    args: HistoryArgs,
    store: &dyn Store,
    output: &Output,
) -> anyhow::Result<Verdict> {
    if args.verify {
        return verify(&args.id, store, output).await;
    }
    let filter = HistoryFilter {
        kind: args.kind,
        product: args.product,
        since: args.since,
        until: args.until,
        limit: Some(args.limit),
    };
    let changes = store.read_history(&args.id, &filter).await?;
    output.json(&changes)?;
    let mut revision = None;
    for logged in &changes {
        if revision.replace(logged.revision) != Some(logged.revision) {
            output.say(format_args!(
                "{BOLD}revision {}{BOLD:#} {DIM}{} run {}{DIM:#}",
                logged.revision,
                at(logged.at),
                logged.run_id
            ))?;
        }
        match logged.change() {
            Ok(change) => {
                let style = change_style(&change);
                output.say(format_args!(
                    "  {style}{}{style:#}",
                    change.to_string().replace('\n', "\n  ")
                ))?;
            }
            // A newer version wrote it.
            Err(_) => output.say(format_args!(
                "  {} {} {}",
                logged.op, logged.kind, logged.store_id
            ))?,
        }
    }
    if changes.is_empty() {
        output.say("no changes")?;
    }
    Ok(Verdict::Done)
}

/// Replays the whole log and compares it with the catalog.
pub(super) async fn verify(
    id: &ProjectId,
    store: &dyn Store,
    output: &Output,
) -> anyhow::Result<Verdict> {
    let bar = progress::spinner(output);
    bar.set_message("replaying the change log");
    let proof = store::verify(store, id, clock::now()).await;
    bar.finish_and_clear();
    let proof = proof?;
    output.json(&answer(&proof)?)?;
    if proof.holds() {
        output.say(format_args!(
            "{GREEN}verified{GREEN:#}: {} give the catalog's {} and {} removed {}{}",
            size(&proof),
            counted(proof.present, "entry", "entries"),
            grouped(proof.removed),
            if proof.removed == 1 { "one" } else { "ones" },
            proof
                .log_since
                .map(|since| format!("; the log is whole since {}", at(since)))
                .unwrap_or_default()
        ))?;
        return Ok(Verdict::Done);
    }
    let count = proof.contradictions.len() + proof.more;
    output.say(format_args!(
        "{RED}not verified{RED:#}: {} in {}",
        counted(count, "contradiction", "contradictions"),
        size(&proof)
    ))?;
    for contradiction in &proof.contradictions {
        output.say(format_args!("  {}", plain(&contradiction.to_string())))?;
    }
    if proof.more > 0 {
        output.say(format_args!("  and {} more", grouped(proof.more)))?;
    }
    output.say(
        "  Something else than catalog-sync wrote to the database, or this is a fault of ours. Readers see what is stored; the next \
         sync sets right what differs from Apple's. What the log lost is in your backups.",
    )?;
    Ok(Verdict::Failed)
}

/// The proof, with the verdict and the sentences that people are shown.
fn answer(proof: &Proof) -> anyhow::Result<Value> {
    let told = |contradiction: &Contradiction| -> anyhow::Result<Value> {
        let mut told = serde_json::to_value(contradiction)?;
        if let Value::Object(fields) = &mut told {
            fields.insert("sentence".to_owned(), contradiction.to_string().into());
        }
        Ok(told)
    };
    let contradictions = proof.contradictions.iter().map(told);
    Ok(json!({
        "verified": proof.holds(),
        "changes": proof.changes,
        "revisions": proof.revisions,
        "present": proof.present,
        "removed": proof.removed,
        "log_since": proof.log_since,
        "contradictions": contradictions.collect::<anyhow::Result<Vec<_>>>()?,
        "more": proof.more,
    }))
}

fn size(proof: &Proof) -> String {
    format!(
        "{} in {}",
        counted(proof.changes, "change", "changes"),
        counted(proof.revisions, "revision", "revisions")
    )
}

/// `1 entry`, `1,234 entries`.
fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

/// `1,234`.
fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    #[test]
    fn digits_are_grouped_by_thousands() {
        for (count, grouped) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(super::grouped(count), grouped);
        }
    }
}
