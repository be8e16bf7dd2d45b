//! Every block of README and docs is run, or says why not.
//!
//! A comment right above a block says how:
//!
//! | comment | |
//! |---|---|
//! | none | shell commands run in the page's story, SQL runs on both databases, JSON, TOML and YAML are read |
//! | `<!-- exits 2: COMMAND -->` | this line of it ends with that code |
//! | `<!-- in the background -->` | a daemon, which goes on until the page ends |
//! | `<!-- Postgres -->` | SQL for that database alone |
//! | `<!-- run by TEST -->` | another test runs it |
//! | `<!-- not run: REASON -->` | nothing does |

mod blocks;
mod examples;
mod promises;
mod queries;
mod runbook;
mod schemas;
mod stories;
