//! Gathers what the file and the environment set, with where each came from.
//!
//! What can be set, and of which type, is read off the defaults: a key that is added to a section needs nothing here.

use std::{collections::BTreeMap, fmt, path::Path};

use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue},
};

use super::{Config, validate};
use crate::environment::PREFIX;

/// Where a value came from.
enum Origin {
    File { path: String, line: usize },
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

pub(super) struct Settings {
    /// The default of every key, by its path, such as `store.url`.
    defaults: BTreeMap<String, Value>,
    set: BTreeMap<String, (Value, Origin)>,
    problems: Vec<String>,
}

impl Settings {
    pub(super) fn new() -> Self {
        Self {
            defaults: leaves(&default_table()),
            set: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    pub(super) fn read_file(&mut self, text: &str, path: &Path) {
        let parsed = DeTable::parse(text).and_then(|spans| Ok((spans, text.parse::<Table>()?)));
        match parsed {
            Ok((spans, values)) => {
                let file = File {
                    path: path.display().to_string(),
                    text,
                    values: leaves(&values),
                };
                self.read_table(&file, spans.get_ref(), "");
            }
            Err(error) => {
                let line = error.span().map_or(1, |span| line_of(text, span.start));
                let message = error.message().replace('\n', ", ");
                self.problems
                    .push(format!("{}:{line}: {message}", path.display()));
            }
        }
    }

    fn read_table(&mut self, file: &File<'_>, table: &DeTable<'_>, prefix: &str) {
        // In the order of the file, for which the map has none.
        let mut entries: Vec<(&Spanned<_>, &Spanned<DeValue<'_>>)> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let path = format!("{prefix}{}", key.get_ref());
            let origin = Origin::File {
                path: file.path.clone(),
                line: line_of(file.text, key.span().start),
            };
            if let Some(default) = self.defaults.get(&path) {
                match file
                    .values
                    .get(&path)
                    .filter(|value| value.same_type(default))
                {
                    Some(value) => self.set(path, value.clone(), origin),
                    None => self.wrong_type(&path, value.get_ref().type_str(), &origin),
                }
                continue;
            }
            let is_section = self.keys_of(&path).next().is_some();
            match (is_section, value.get_ref().as_table()) {
                (true, Some(table)) => self.read_table(file, table, &format!("{path}.")),
                (true, None) => {
                    let expected = format!(
                        "{origin}: '{path}' is a section; write [{path}] and its keys below"
                    );
                    self.problems.push(expected);
                }
                (false, Some(_)) => {
                    let hint = self.nearest_section(&path);
                    self.problems
                        .push(format!("{origin}: unknown section '{path}'; {hint}"));
                }
                (false, None) => {
                    let hint = self.hint(&path, |path| format!("'{path}'"));
                    self.problems
                        .push(format!("{origin}: unknown key '{path}'; {hint}"));
                }
            }
        }
    }

    pub(super) fn read_environment(&mut self, env: Vec<(String, String)>) {
        for (name, text) in env {
            let Some(rest) = name.strip_prefix(PREFIX) else {
                continue;
            };
            let path = rest.to_ascii_lowercase().replace("__", ".");
            if let Some(default) = self.defaults.get(&path) {
                let value = parse_as(default, &text);
                let origin = Origin::Variable(name);
                match value {
                    Some(value) => self.set(path, value, origin),
                    None => self.wrong_type(&path, "something else", &origin),
                }
            } else if rest.contains("__") {
                let hint = self.hint(&path, variable_of);
                self.problems
                    .push(format!("{name}: unknown variable; {hint}"));
            } else if let Some(meant) = self
                .defaults
                .keys()
                .find(|key| key.replace('.', "_") == path)
            {
                // Other variables with one underscore are let be: they may be somebody else's, such as Kubernetes'.
                self.problems.push(format!(
                    "{name}: unknown variable; did you mean {}?",
                    variable_of(meant)
                ));
            }
        }
    }

    fn set(&mut self, path: String, value: Value, origin: Origin) {
        match value {
            Value::Integer(number) if number < 0 => {
                self.wrong_type(&path, &number.to_string(), &origin);
            }
            value => {
                self.set.insert(path, (value, origin));
            }
        }
    }

    fn wrong_type(&mut self, path: &str, found: &str, origin: &Origin) {
        let expected = match self.defaults.get(path) {
            Some(Value::Integer(_)) => "a whole number of 0 or more",
            Some(Value::Boolean(_)) => "true or false",
            Some(Value::Float(_)) => "a number with a decimal point",
            Some(Value::Array(_)) => "a list of texts, such as [\"..\", \"..\"]",
            _ => "a text in quotes",
        };
        self.problems.push(format!(
            "{origin}: '{path}' must be {expected}; here it is {}",
            with_article(found)
        ));
    }

    /// The configuration, or all that is wrong with it.
    pub(super) fn finish(mut self) -> Result<Config, Vec<String>> {
        let mut table = default_table();
        for (path, (value, origin)) in &self.set {
            let mut alone = default_table();
            replace(&mut alone, path, value);
            // Each key is tried by itself, so that what serde says of it can be told with its place.
            match alone.try_into::<Config>() {
                Ok(_) => replace(&mut table, path, value),
                Err(error) => {
                    let message = error.message().replace('`', "'");
                    self.problems.push(format!("{origin}: '{path}': {message}"));
                }
            }
        }
        let config = table
            .try_into::<Config>()
            .expect("each key was tried and sections are independent");
        for broken in validate::broken_rules(&config) {
            let origin = broken.keys.iter().find_map(|key| self.set.get(*key));
            // The defaults break no rule, so a key of a broken one is set somewhere.
            let place = origin.map_or(String::new(), |(_, origin)| format!("{origin}: "));
            self.problems.push(format!("{place}{}", broken.text));
        }
        if self.problems.is_empty() {
            Ok(config)
        } else {
            Err(self.problems)
        }
    }

    fn keys_of(&self, section: &str) -> impl Iterator<Item = &str> {
        let prefix = format!("{section}.");
        self.defaults
            .keys()
            .filter_map(move |path| path.strip_prefix(&prefix))
    }

    /// The nearest key of the same section, else of any, in the words of `show`; else what keys there are.
    fn hint(&self, path: &str, show: impl Fn(&str) -> String) -> String {
        let (section, leaf) = path.rsplit_once('.').unwrap_or(("", path));
        let here = nearest(leaf, self.keys_of(section)).map(|leaf| format!("{section}.{leaf}"));
        let meant = here.or_else(|| {
            let leaf = nearest(leaf, self.defaults.keys().map(|path| leaf_of(path)))?;
            let same = self.defaults.keys().filter(|path| leaf_of(path) == leaf);
            nearest_of_all(path, same.map(String::as_str)).map(str::to_owned)
        });
        if let Some(meant) = meant {
            return format!("did you mean {}?", show(&meant));
        }
        let keys: Vec<String> = self
            .keys_of(section)
            .map(|leaf| show(&format!("{section}.{leaf}")))
            .collect();
        if keys.is_empty() {
            format!("the sections are {}", self.sections().join(", "))
        } else {
            format!("there are {}", keys.join(", "))
        }
    }

    fn nearest_section(&self, name: &str) -> String {
        let sections = self.sections();
        match nearest(name, sections.iter().copied()) {
            Some(meant) => format!("did you mean '{meant}'?"),
            None => format!("the sections are {}", sections.join(", ")),
        }
    }

    fn sections(&self) -> Vec<&str> {
        let mut sections: Vec<&str> = self
            .defaults
            .keys()
            .filter_map(|path| Some(path.rsplit_once('.')?.0))
            .collect();
        sections.dedup();
        sections
    }
}

struct File<'a> {
    path: String,
    text: &'a str,
    values: BTreeMap<String, Value>,
}

fn default_table() -> Table {
    Table::try_from(Config::default()).expect("texts and numbers in sections are TOML")
}

/// The values of a table that are not tables, by their paths.
pub(super) fn leaves(table: &Table) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => leaves.extend(
                self::leaves(inner)
                    .into_iter()
                    .map(|(path, value)| (format!("{key}.{path}"), value)),
            ),
            value => {
                leaves.insert(key.clone(), value.clone());
            }
        }
    }
    leaves
}

/// Puts a value where the path leads; every path leads somewhere, as it comes from the defaults.
fn replace(table: &mut Table, path: &str, value: &Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value.clone());
        }
        Some((section, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(section) {
                replace(inner, rest, value);
            }
        }
    }
}

/// Reads a variable as the type of the default.
fn parse_as(default: &Value, text: &str) -> Option<Value> {
    match default {
        Value::String(_) => Some(Value::String(text.to_owned())),
        // One text needs no brackets.
        Value::Array(_) if !text.trim_start().starts_with('[') => {
            Some(Value::Array(vec![Value::String(text.to_owned())]))
        }
        _ => text
            .trim()
            .parse::<Value>()
            .ok()
            .filter(|value| value.same_type(default)),
    }
}

fn variable_of(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "__").to_ascii_uppercase())
}

fn line_of(text: &str, offset: usize) -> usize {
    text.get(..offset)
        .map_or(1, |before| before.split('\n').count())
}

fn leaf_of(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(_, leaf)| leaf)
}

fn with_article(found: &str) -> String {
    match found {
        "string" => "a text".to_owned(),
        "integer" | "array" => format!("an {found}"),
        "boolean" | "float" | "table" | "datetime" => format!("a {found}"),
        other => other.to_owned(),
    }
}

/// The candidate most like the word, if any is like it.
fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    candidates
        .map(|candidate| {
            let like = strsim::normalized_damerau_levenshtein(&word, candidate);
            let within = word.len() >= 3 && (candidate.contains(&word) || word.contains(candidate));
            (if within { like.max(0.6) } else { like }, candidate)
        })
        .filter(|(like, _)| *like >= 0.6)
        .max_by(|(one, _), (two, _)| one.total_cmp(two))
        .map(|(_, candidate)| candidate)
}

fn nearest_of_all<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates.max_by(|one, two| {
        let like = |other| strsim::normalized_damerau_levenshtein(word, other);
        like(one).total_cmp(&like(two))
    })
}
