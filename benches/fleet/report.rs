//! What was measured, as a table.

use std::time::Duration;

use comfy_table::{CellAlignment, Table};

use super::{bare::Fetched, worker::Round};

const HEAD: [&str; 13] = [
    "place",
    "round",
    "runs/s",
    "less upstream",
    "CPU ms/run",
    "bare",
    "ratio",
    "database",
    "upstream",
    "requests",
    "rows",
    "KB/run",
    "peak MiB",
];

#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Vec<String>>,
}

impl Report {
    pub(crate) fn row(&mut self, place: &str, round: &str, worker: &Round, bare: Option<&Fetched>) {
        let runs = worker.runs as f64;
        let a_run = |time: Duration| time.as_secs_f64() * 1000.0 / runs;
        // What would be had if upstream had processors of its own.
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let own = worker.wall.as_secs_f64() - worker.upstream_cpu.as_secs_f64() / cores;
        let row = vec![
            place.to_owned(),
            round.to_owned(),
            format!("{:.0}", runs / worker.wall.as_secs_f64()),
            format!("{:.0}", runs / own),
            format!("{:.2}", a_run(worker.cpu)),
            bare.map_or_else(String::new, |bare| {
                format!(
                    "{:.2}",
                    bare.cpu.as_secs_f64() * 1000.0 / bare.projects as f64
                )
            }),
            bare.map_or_else(String::new, |bare| {
                format!("{:.2}", worker.cpu.as_secs_f64() / bare.cpu.as_secs_f64())
            }),
            format!("{:.2}", a_run(worker.database_cpu)),
            format!("{:.2}", a_run(worker.upstream_cpu)),
            format!("{:.2}", worker.requests as f64 / runs),
            format!("{:.2}", worker.rows as f64 / runs),
            format!("{:.0}", worker.bytes as f64 / 1000.0 / runs),
            format!("{:.0}", worker.memory as f64 / f64::from(1 << 20)),
        ];
        println!("{}", row.join("  "));
        self.rows.push(row);
    }

    pub(crate) fn print(self) {
        let mut table = Table::new();
        table
            .load_preset(comfy_table::presets::NOTHING)
            .set_header(HEAD);
        table.add_rows(self.rows);
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        println!("\n{table}");
    }
}
