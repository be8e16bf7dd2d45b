//! The catalog of one project, what Apple listed, and what lies between the two.
//!
//! Everything here is pure: no clock, no log, no input or output. [`diff()`] compares what the store holds (a [`Catalog`])
//! with what was listed (a [`Snapshot`]) and yields a [`ChangeSet`]; only [`guard::review`] turns that into a
//! [`guard::Plan`], which is all that a store accepts.
//!
//! What must hold throughout: a kind that was not listed completely is not in a snapshot's scope, and nothing outside the
//! scope is ever changed.

mod absence;
mod change;
mod diff;
mod entry;
pub mod guard;
mod hold;
mod known;
mod limits;
pub mod log;
mod mark;
mod snapshot;
mod source;

pub use absence::{Absence, Answer, Answers, Confirmation};
pub use change::{Change, ChangeSet, Counts, FieldChange, Op, Tally, UnknownOp};
pub use diff::diff;
pub use entry::{Attributes, Body, Entry, Key, Kind, StoreId, UnknownKind};
pub use guard::{Limits, OwnLimits, Plan};
pub use hold::{Digest, Held, Hold, HoldSummary, Reason, Standing};
pub use known::{Unforeseen, unforeseen};
pub use log::replay;
pub use mark::{Listings, Mark, Marks, Page, PageDigest};
pub use snapshot::{Catalog, NotAListing, Snapshot};
pub use source::{Source, Sources, Turn};
