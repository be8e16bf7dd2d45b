//! Edits that wait for a request: what changes while a listing is read.

use std::fmt;

use super::fault;
use super::state::State;

/// A change of the state.
pub(super) type Change = Box<dyn FnOnce(&mut State) + Send>;

/// The edits that wait, in the order in which they were given.
#[derive(Default)]
pub(super) struct Edits(Vec<Edit>);

struct Edit {
    path: String,
    /// How many of its requests still pass first.
    after: usize,
    change: Change,
}

impl fmt::Debug for Edits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.0.iter().map(|edit| (&edit.path, edit.after));
        f.debug_list().entries(waiting).finish()
    }
}

impl Edits {
    pub(super) fn add(&mut self, path: String, after: usize, change: Change) {
        self.0.push(Edit {
            path,
            after,
            change,
        });
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// What is to be changed before this request is answered.
    pub(super) fn meet(&mut self, path: &str, query: &[(String, String)]) -> Vec<Change> {
        let mut due = Vec::new();
        for mut edit in std::mem::take(&mut self.0) {
            let is_met = fault::is_of(&edit.path, path, query);
            match (is_met, edit.after) {
                (true, 0) => due.push(edit.change),
                (true, _) => {
                    edit.after -= 1;
                    self.0.push(edit);
                }
                (false, _) => self.0.push(edit),
            }
        }
        due
    }
}
