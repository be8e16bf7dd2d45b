//! Of what a listing is: which app, seen with which key, by which read.
//!
//! A change of any of them begins a generation: what was seen before and is not seen now may be out of sight, and not gone.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::Kind;

/// Of what a listing is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The app's id.
    pub app: String,
    /// The Key ID.
    pub key: String,
    /// The path of the read, with its version.
    pub read: String,
}

/// Of what each kind was last listed completely.
pub type Sources = BTreeMap<Kind, Source>;

/// What is another than it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turn {
    /// The project's app.
    App,
    /// The API key.
    Key,
    /// The read, because this version of the program uses another version of the API.
    Read,
}

impl Source {
    /// What is another than `before`, the gravest first.
    #[must_use]
    pub fn turn(&self, before: &Self) -> Option<Turn> {
        if self.app != before.app {
            Some(Turn::App)
        } else if self.key != before.key {
            Some(Turn::Key)
        } else if self.read != before.read {
            Some(Turn::Read)
        } else {
            None
        }
    }
}

/// `the API key was changed`.
impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::App => "the app was changed",
            Self::Key => "the API key was changed",
            Self::Read => "the version of Apple's API was changed",
        })
    }
}
