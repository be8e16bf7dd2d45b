//! The blocks of the pages, and that each says how it is run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::stories::STORIES;

/// How a block is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    None,
    Exits(i32, String),
    InTheBackground,
    Postgres,
    RunBy(String),
    NotRun,
}

/// A block of code in a page.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) language: String,
    pub(super) text: String,
    /// Of its first line in the page.
    pub(super) line: usize,
    pub(super) note: Note,
}

impl Block {
    pub(super) fn is_shell(&self) -> bool {
        matches!(self.language.as_str(), "sh" | "console")
    }
}

pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page, from the project's root.
pub(super) fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "md"))
        .map(|path| path.strip_prefix(root()).unwrap().to_owned())
        .collect();
    pages.extend(["README.md", "CONTRIBUTING.md"].map(PathBuf::from));
    pages.sort();
    pages
}

pub(super) fn blocks(page: &Path) -> Vec<Block> {
    parse(&fs::read_to_string(root().join(page)).unwrap())
}

fn parse(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    let mut above = "";
    for (number, line) in page.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(language)) => {
                open = Some(Block {
                    language: language.trim().to_owned(),
                    text: String::new(),
                    line: number + 2,
                    note: note(above),
                });
            }
            (None, None) => {}
        }
        above = line;
    }
    assert!(open.is_none(), "a block does not end: {open:?}");
    blocks
}

fn note(line: &str) -> Note {
    let Some(comment) = line
        .trim()
        .strip_prefix("<!-- ")
        .and_then(|rest| rest.strip_suffix(" -->"))
    else {
        return Note::None;
    };
    if let Some((code, command)) = comment
        .strip_prefix("exits ")
        .and_then(|rest| rest.split_once(": "))
    {
        return Note::Exits(code.parse().unwrap(), command.to_owned());
    }
    match comment {
        "in the background" => Note::InTheBackground,
        "Postgres" => Note::Postgres,
        "test command" => Note::NotRun, // It is what runs this.
        _ => match (
            comment.strip_prefix("run by "),
            comment.strip_prefix("not run: "),
        ) {
            (Some(test), _) => Note::RunBy(test.to_owned()),
            (_, Some(_)) => Note::NotRun,
            _ => panic!("a comment above a block that says nothing of how it is run: {line}"),
        },
    }
}

/// All tests of this binary, by the names of their functions.
fn tests(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, text);
        } else if path.extension().is_some_and(|it| it == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_block_says_how_it_is_run() {
    let mut sources = String::new();
    tests(&root().join("tests/it"), &mut sources);
    for page in pages() {
        let has_story = STORIES.contains(&page.to_str().unwrap());
        for block in blocks(&page) {
            let place = format!("{}:{}", page.display(), block.line);
            match &block.note {
                Note::RunBy(test) => assert!(
                    sources.contains(&format!("fn {test}(")),
                    "{place}: there is no test {test}"
                ),
                Note::NotRun => {}
                Note::Exits(_, command) => {
                    assert!(block.is_shell() && has_story, "{place}");
                    assert!(block.text.lines().any(|line| line == command), "{place}");
                }
                Note::InTheBackground => assert!(block.is_shell() && has_story, "{place}"),
                Note::Postgres => assert_eq!(block.language, "sql", "{place}"),
                Note::None => match block.language.as_str() {
                    "sh" | "console" => {
                        assert!(has_story, "{place}: the page has no story that runs it");
                    }
                    "sql" | "json" | "toml" | "yaml" | "text" | "" => {}
                    other => panic!("{place}: nothing runs a block of '{other}'"),
                },
            }
        }
    }
}

#[test]
fn json_toml_and_yaml_can_be_read() {
    for page in pages() {
        for block in blocks(&page) {
            let place = format!("{}:{}", page.display(), block.line);
            match (block.language.as_str(), &block.note) {
                ("json", Note::None) => {
                    for document in serde_json::Deserializer::from_str(&block.text)
                        .into_iter::<serde_json::Value>()
                    {
                        document.unwrap_or_else(|error| panic!("{place}: {error}"));
                    }
                }
                ("yaml", Note::None) => {
                    serde_yaml_ng::from_str::<serde_yaml_ng::Value>(&block.text)
                        .unwrap_or_else(|error| panic!("{place}: {error}"));
                }
                ("toml", Note::None) => {
                    let folder = tempfile::tempdir().unwrap();
                    let file = folder.path().join("worker.toml");
                    fs::write(&file, &block.text).unwrap();
                    catalog_sync::config::Config::load(Some(&file), [])
                        .unwrap_or_else(|error| panic!("{place}: {error}"));
                }
                _ => {}
            }
        }
    }
}

#[test]
fn blocks_are_found_with_their_notes() {
    let page = "a\n\n<!-- exits 2: b -->\n```sh\na\nb\n```\n<!-- not run: no -->\n```console\nc\n```\n\n```sql\nd;\n```\n";
    let found: Vec<_> = parse(page)
        .into_iter()
        .map(|block| (block.language, block.text, block.line, block.note))
        .collect();
    let block =
        |language: &str, text: &str, line, note| (language.to_owned(), text.to_owned(), line, note);
    assert_eq!(
        found,
        [
            block("sh", "a\nb\n", 5, Note::Exits(2, "b".to_owned())),
            block("console", "c\n", 10, Note::NotRun),
            block("sql", "d;\n", 14, Note::None),
        ]
    );
}
