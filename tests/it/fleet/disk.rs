//! A disk that fills while workers write, over and over.
//!
//! The database is on a file system of 4 MiB in memory; only root may make one.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use catalog_sync::{clock, simulator::InAppPurchase};
use serde_json::json;
use tokio::time::{Instant as Moment, interval, timeout};

use super::{
    Size, checks::spread, diary::Diary, invariants as inv, place::Place, tables::Tables,
    workers::Workers,
};
use crate::random::Random;

const SIZE: &str = "size=4m";

/// How often something may happen.
const TICK: Duration = Duration::from_millis(50);

/// Only a hang takes longer until work goes on.
const RECOVERED_WITHIN: Duration = Duration::from_mins(2);

/// Longer than any run that could not be written is put off.
const DONE_WITHIN: Duration = Duration::from_mins(10);

/// A file system of its own, which goes when this is dropped.
pub(super) struct Disk(PathBuf);

impl Disk {
    /// None where none may be made; says so.
    pub(super) fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", SIZE, "catalog-sync"])
            .arg(at)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            failed => {
                println!("skipped: no file system may be mounted here: {failed:?}");
                None
            }
        }
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Takes every byte that is left.
    fn fill(&self) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.ballast())
            .unwrap();
        for piece in [1 << 16, 1 << 12, 1 << 8, 1] {
            loop {
                match file.write_all(&vec![0; piece]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    fn free(&self) {
        File::create(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever has a file open there is about to end.
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|it| it.success()) || std::thread::panicking());
    }
}

/// Fills the disk so often, each time in the middle of something else.
pub(super) async fn fill_and_free(size: &Size, fills: u64) {
    let Some((mut place, disk)) = Place::on_a_small_disk(size).await else {
        return;
    };
    println!(
        "disk: {fills} fills, {} projects, {} workers, seed {}",
        size.projects, size.workers, size.seed
    );
    let mut random = Random(size.seed);
    let mut diary = Diary::begin(place.folder.path());
    let mut tables = place.tables().await;
    let workers = Workers::start(&place, size);
    until_a_run_began(&place, &mut tables, &mut diary, clock::now()).await;
    let mut refused = 0;
    let mut recovered = Vec::new();
    for number in 0..fills {
        ask_and_edit(&mut place, &mut tables, &mut diary, &mut random, number).await;
        let mut ticks = interval(Duration::from_millis(1 + random.next() % 40));
        for _ in 0..random.below(20) {
            ticks.tick().await;
        }
        disk.fill();
        diary.note("full", json!({"number": number}));
        let mut ticks = interval(TICK);
        for _ in 0..=random.below(20) {
            ticks.tick().await;
            let (project, _) = &place.projects[random.below(place.projects.len())];
            let sent_at = clock::now();
            let asked = tables.ask(project).await;
            refused += usize::from(asked.is_err());
            diary.asked(project, "rows", sent_at, asked.is_ok());
        }
        assert_eq!(tables.partial_runs().await, 0, "while it is full");
        disk.free();
        let freed_at = clock::now();
        diary.note("freed", json!({"number": number}));
        let took = until_a_run_began(&place, &mut tables, &mut diary, freed_at).await;
        recovered.push(took);
        assert_eq!(tables.integrity().await, ["ok"], "after fill {number}");
        assert_eq!(tables.partial_runs().await, 0, "after fill {number}");
    }
    until_all_was_done(&place, &mut tables, &mut diary).await;
    let account = workers.stop().await;
    let runs = tables.runs().await;
    let changes = tables.changes().await;
    let by_project = super::checks::by_project(&runs);
    inv::i1_epochs_are_not_interleaved(&runs, &by_project, &changes);
    inv::i2_no_request_is_lost(&diary, &by_project);
    inv::i3_a_slot_has_one_run(&mut tables).await;
    inv::i4_catalogs_are_what_is_upstream(&place).await;
    inv::i5_the_log_leads_to_the_catalog(&place, &by_project, &changes).await;
    let crashed = account
        .events
        .iter()
        .filter(|it| it["event"] == "daemon.crashed");
    assert_eq!(crashed.count(), 0);
    let hit = account.events.iter().filter(|it| {
        it["error.sentence"]
            .as_str()
            .is_some_and(|it| it.contains("full"))
    });
    println!("  fills                    {fills}");
    println!("  inserts refused          {refused}");
    println!("  told by workers as full  {}", hit.count());
    println!("  recovered median / max   {}", spread(&recovered));
    println!("  runs                     {}", runs.len());
    println!("  changes logged           {}", changes.len());
}

async fn ask_and_edit(
    place: &mut Place,
    tables: &mut Tables,
    diary: &mut Diary,
    random: &mut Random,
    number: u64,
) {
    for _ in 0..3 {
        let (project, app) = place.projects[random.below(place.projects.len())].clone();
        place.simulator.edit(|state| {
            let app = state.app_mut(&app).unwrap();
            app.in_app_purchases[0].name = format!("Name {number}");
            // The catalog grows, but not for ever.
            if app.in_app_purchases.len() < 40 {
                let id = random.next().to_string();
                let product_id = format!("{}.{id}", app.bundle_id);
                app.in_app_purchases
                    .push(InAppPurchase::new(&id, product_id, format!("New {id}")));
            }
        });
        let sent_at = clock::now();
        let asked = tables.ask(&project).await;
        diary.asked(&project, "rows", sent_at, asked.is_ok());
    }
}

/// Asks for one project after the other until a run has begun and been written; gives how long that took.
async fn until_a_run_began(
    place: &Place,
    tables: &mut Tables,
    diary: &mut Diary,
    since: clock::Instant,
) -> Duration {
    let mut ticks = interval(TICK);
    let began = Moment::now();
    for (project, _) in place.projects.iter().cycle() {
        ticks.tick().await;
        let starts = tables.latest_starts().await;
        if let Some((_, start)) = starts
            .iter()
            .filter(|it| it.1 >= since)
            .min_by_key(|it| it.1)
        {
            return (*start - since).to_std().unwrap();
        }
        assert!(
            began.elapsed() < RECOVERED_WITHIN,
            "no run has begun since {since}"
        );
        let sent_at = clock::now();
        let asked = tables.ask(project).await;
        diary.asked(project, "rows", sent_at, asked.is_ok());
    }
    unreachable!("there is always another project")
}

/// Asks for each project once more, and waits until that was done: what could not be written waits for some minutes.
async fn until_all_was_done(place: &Place, tables: &mut Tables, diary: &mut Diary) {
    for (project, _) in &place.projects {
        let sent_at = clock::now();
        let asked = tables.ask(project).await;
        diary.asked(project, "rows", sent_at, asked.is_ok());
        assert!(asked.is_ok(), "there is room: {asked:?}");
    }
    let done = async {
        let mut ticks = interval(10 * TICK);
        while !super::story::unanswered(diary, tables).await.is_empty() {
            ticks.tick().await;
        }
    };
    timeout(DONE_WITHIN, done).await.expect("not all was done");
}
