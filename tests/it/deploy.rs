//! What is shipped to run the daemon with: the unit, the package, the image, manifests, alerts, a dashboard, rules for logs.
//!
//! Where a tool knows the format, the tool judges, and is shown a broken file as well. What ties a file to the code or to another
//! file is compared here.

mod containers;
mod logs;
mod metrics;
mod package;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use catalog_sync::diagnosis::{Code, Retry};
use serde::Deserialize as _;
use serde_yaml_ng::{Deserializer, Value};

/// A file of the repository.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Its text.
fn shipped(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Its documents.
fn yaml(name: &str) -> Vec<Value> {
    documents(&shipped(name))
}

fn documents(text: &str) -> Vec<Value> {
    let mut documents: Vec<Value> = Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).unwrap())
        .collect();
    for document in &mut documents {
        // What is merged may merge something itself.
        document.apply_merge().unwrap();
        document.apply_merge().unwrap();
    }
    documents
}

/// What a program that may not be on this machine makes of it; none, and a word, when it is not.
fn ask(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            println!("skipped: {:?}: {error}", command.get_program());
            None
        }
    }
}

/// What it said, once it said yes.
#[track_caller]
fn yes(output: &Output) -> String {
    let said = said(output);
    assert!(output.status.success(), "{said}");
    said
}

/// What it said, once it said no.
#[track_caller]
fn no(output: &Output) -> String {
    let said = said(output);
    assert!(!output.status.success(), "{said}");
    said
}

fn said(output: &Output) -> String {
    let [out, err] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    out + &err
}

/// The words of a text that are made of these characters.
fn words(text: &str, is_of_word: impl Fn(char) -> bool) -> impl Iterator<Item = &str> {
    text.split(move |it| !is_of_word(it))
        .filter(|word| !word.is_empty())
}

/// The codes of failures that a person must mend, but for this one.
fn codes_for_people(but: &[Code]) -> Vec<&'static str> {
    let mut codes: Vec<_> = Code::ALL
        .iter()
        .filter(|code| code.retry() != Retry::ByItself && !but.contains(code))
        .map(|code| code.as_str())
        .collect();
    codes.sort_unstable();
    codes
}

/// What is between two texts, wherever they stand in a third.
fn between<'a>(text: &'a str, start: &str, end: &str) -> Vec<&'a str> {
    text.split(start)
        .skip(1)
        .map(|rest| rest.split(end).next().unwrap())
        .collect()
}

#[test]
fn the_page_on_deploying_links_to_what_is_there() {
    let page = shipped("docs/deploy.md");
    let links = between(&page, "](", ")");
    assert!(links.len() > 10);
    for link in links {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let text = match file {
            "" => page.clone(),
            file if path("docs").join(file).is_dir() => continue,
            file => shipped(&format!("docs/{file}")),
        };
        let headings = text.lines().filter(|line| line.starts_with('#'));
        let mut anchors = headings.map(|line| {
            line.trim_start_matches(['#', ' '])
                .to_lowercase()
                .replace(' ', "-")
        });
        assert!(
            anchor.is_empty() || anchors.any(|it| it == anchor),
            "{link}"
        );
    }
}
