//! Finds the calls of `tracing` in a source file: by its tokens, so that no way to format them hides one.

use std::{collections::BTreeMap, iter::Peekable, vec::IntoIter};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// One call.
#[derive(Debug, PartialEq)]
pub(super) struct Call {
    pub(super) line: usize,
    pub(super) site: Site,
    /// Several where a macro of the same file fills the level in.
    pub(super) levels: Vec<String>,
    pub(super) fields: Vec<String>,
}

/// What a call makes.
#[derive(Debug, PartialEq)]
pub(super) enum Site {
    Event(String),
    Span(String),
    /// An event without a name.
    Nameless,
}

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// The calls in this source, without those of `#[cfg(test)]`. One that cannot be read is an error: it would be overlooked.
pub(super) fn scan(source: &str) -> Result<Vec<Call>, String> {
    let tokens: TokenStream = source.parse().map_err(|error| format!("{error}"))?;
    let mut scanner = Scanner::default();
    scanner.walk(tokens, None)?;
    let Scanner { mut found, used } = scanner;
    for (call, by) in &mut found {
        if let Some(by) = by {
            call.levels = used.get(by).cloned().unwrap_or_default();
        }
    }
    Ok(found.into_iter().map(|(call, _)| call).collect())
}

#[derive(Default)]
struct Scanner {
    /// With the macro that fills the level in, if one does.
    found: Vec<(Call, Option<String>)>,
    /// The macros that are called with one word: `closing!(info)`.
    used: BTreeMap<String, Vec<String>>,
}

impl Scanner {
    fn walk(&mut self, tokens: TokenStream, within: Option<&str>) -> Result<(), String> {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            let rest = &tokens[at..];
            if is_test(rest) {
                at += 2
                    + rest[2..]
                        .iter()
                        .take_while(|token| !ends_item(token))
                        .count()
                    + 1;
                continue;
            }
            if let Some((name, body)) = definition(rest) {
                self.walk(body.stream(), Some(&name))?;
                at += 4;
                continue;
            }
            if texts(rest, 3) == ["tracing", ":", ":"] {
                at += 3 + self.call(&tokens[at + 3..], within)?;
                continue;
            }
            if let [TokenTree::Ident(name), bang, TokenTree::Group(group), ..] = rest
                && bang.to_string() == "!"
            {
                let (name, line) = (name.to_string(), name.span().start().line);
                if LEVELS.contains(&name.as_str()) || name.ends_with("_span") {
                    return Err(format!("line {line}: write tracing::{name}!"));
                }
                let word: Vec<String> = group
                    .stream()
                    .into_iter()
                    .map(|it| it.to_string())
                    .collect();
                if let [word] = word.as_slice()
                    && LEVELS.contains(&word.as_str())
                {
                    self.used.entry(name).or_default().push(word.clone());
                }
            }
            if let TokenTree::Group(group) = &tokens[at] {
                self.walk(group.stream(), within)?;
            }
            at += 1;
        }
        Ok(())
    }

    /// What comes after `tracing::`; gives how many tokens belong to it.
    fn call(&mut self, rest: &[TokenTree], within: Option<&str>) -> Result<usize, String> {
        let (dollar, level, after) = match texts(rest, 2).as_slice() {
            [dollar, level] if dollar == "$" => (true, level.clone(), &rest[2..]),
            [level, ..] => (false, level.clone(), &rest[1..]),
            [] => return Ok(0),
        };
        let [bang, TokenTree::Group(arguments), ..] = after else {
            return Ok(0);
        };
        if bang.to_string() != "!" || level == "enabled" {
            return Ok(0);
        }
        let line = arguments.span_open().start().line;
        let unread = |what: &str| format!("line {line}: {what} cannot be read");
        let known = |level: &str| LEVELS.contains(&level);
        let span = level.strip_suffix("_span").filter(|level| known(level));
        let (levels, by) = match (dollar, span) {
            (true, _) => {
                let by = within.ok_or_else(|| unread("a level outside a macro"))?;
                (Vec::new(), Some(by.to_owned()))
            }
            (false, Some(level)) => (vec![level.to_owned()], None),
            (false, None) if known(&level) => (vec![level.clone()], None),
            (false, None) => return Err(unread(&format!("tracing::{level}!"))),
        };
        self.walk(arguments.stream(), within)?;
        let mut arguments = Arguments::of(arguments);
        let site = if span.is_some() {
            Site::Span(arguments.name().ok_or_else(|| unread("a span's name"))?)
        } else {
            Site::Nameless
        };
        let mut call = Call {
            line,
            site,
            levels,
            fields: Vec::new(),
        };
        while let Some(argument) = arguments.next().map_err(|what| unread(&what))? {
            match argument {
                Argument::Field { name, literal } if name == "event" => {
                    call.site = Site::Event(literal.ok_or_else(|| unread("the event's name"))?);
                }
                Argument::Field { name, .. } => call.fields.push(name),
                Argument::Message => break,
            }
        }
        self.found.push((call, by));
        Ok(rest.len() - after.len() + 2)
    }
}

/// One argument of a call.
enum Argument {
    Field {
        name: String,
        /// Its value, where that is a text that stands there.
        literal: Option<String>,
    },
    /// After it come the parts of the text.
    Message,
}

struct Arguments(Peekable<IntoIter<Vec<TokenTree>>>);

impl Arguments {
    fn of(group: &Group) -> Self {
        let mut arguments = vec![Vec::new()];
        for token in group.stream() {
            if token.to_string() == "," {
                arguments.push(Vec::new());
            } else if let Some(last) = arguments.last_mut() {
                last.push(token);
            }
        }
        arguments.retain(|argument| !argument.is_empty());
        Self(arguments.into_iter().peekable())
    }

    /// The name of a span, which comes first.
    fn name(&mut self) -> Option<String> {
        while self.0.next_if(|argument| is_setting(argument)).is_some() {}
        match self.0.next()?.as_slice() {
            [token] => text_of(token),
            _ => None,
        }
    }

    fn next(&mut self) -> Result<Option<Argument>, String> {
        while self.0.next_if(|argument| is_setting(argument)).is_some() {}
        let Some(argument) = self.0.next() else {
            return Ok(None);
        };
        if let [only] = argument.as_slice()
            && text_of(only).is_some()
        {
            return Ok(Some(Argument::Message));
        }
        let sigil = argument[0].to_string();
        let path = if sigil == "%" || sigil == "?" {
            &argument[1..]
        } else {
            &argument[..]
        };
        let mut name = String::new();
        let mut rest = path;
        while let [token, after @ ..] = rest {
            match token {
                TokenTree::Ident(part) => name += &part.to_string(),
                TokenTree::Punct(dot) if dot.as_char() == '.' => name.push('.'),
                _ => break,
            }
            rest = after;
        }
        match rest {
            [] if !name.is_empty() => Ok(Some(Argument::Field {
                name,
                literal: None,
            })),
            [equals, value @ ..] if equals.to_string() == "=" && !name.is_empty() => {
                let literal = match value {
                    [only] => text_of(only),
                    _ => None,
                };
                Ok(Some(Argument::Field { name, literal }))
            }
            _ => {
                let text: TokenStream = argument.into_iter().collect();
                Err(format!("the argument {text}"))
            }
        }
    }
}

/// `target: "..."` and the like.
fn is_setting(argument: &[TokenTree]) -> bool {
    let texts = texts(argument, 3);
    texts.len() == 3
        && ["target", "parent", "name"].contains(&texts[0].as_str())
        && texts[1] == ":"
        && texts[2] != ":"
}

/// `#[cfg(test)]`.
fn is_test(rest: &[TokenTree]) -> bool {
    let [hash, TokenTree::Group(attribute), ..] = rest else {
        return false;
    };
    hash.to_string() == "#"
        && attribute.delimiter() == Delimiter::Bracket
        && attribute.stream().to_string().replace(' ', "") == "cfg(test)"
}

fn ends_item(token: &TokenTree) -> bool {
    match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';',
        _ => false,
    }
}

/// `macro_rules! name { .. }`.
fn definition(rest: &[TokenTree]) -> Option<(String, &Group)> {
    let [keyword, bang, name, TokenTree::Group(body), ..] = rest else {
        return None;
    };
    let is_one = keyword.to_string() == "macro_rules" && bang.to_string() == "!";
    is_one.then(|| (name.to_string(), body))
}

fn texts(tokens: &[TokenTree], most: usize) -> Vec<String> {
    tokens.iter().take(most).map(ToString::to_string).collect()
}

/// The text of a string literal.
fn text_of(token: &TokenTree) -> Option<String> {
    let text = token.to_string();
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    Some(inner.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `levels site fields` of each call.
    fn found(source: &str) -> Vec<String> {
        let calls = scan(&format!("fn f() {{ {source} }}")).unwrap();
        calls
            .into_iter()
            .map(|call| {
                let site = match call.site {
                    Site::Event(name) => name,
                    Site::Span(name) => format!("span {name}"),
                    Site::Nameless => "nameless".to_owned(),
                };
                format!(
                    "{} {site}: {}",
                    call.levels.join("+"),
                    call.fields.join(" ")
                )
            })
            .collect()
    }

    #[test]
    fn a_field_is_found_however_it_is_written() {
        for (source, expected) in [
            (r#"tracing::info!(event = "a.b", "m")"#, "info a.b: "),
            (
                r#"tracing::info!(event = "a.b", epoch, "m {x}", x = 1)"#,
                "info a.b: epoch",
            ),
            (
                r#"tracing::warn!(event = "a.b", %error, ?x, "m")"#,
                "warn a.b: error x",
            ),
            (
                r#"tracing::warn!(event = "a.b", project.id = %id, "m {}", a == b)"#,
                "warn a.b: project.id",
            ),
            (
                r#"tracing::error!(event = "a.b", run.id, %hold.digest, "m")"#,
                "error a.b: run.id hold.digest",
            ),
            (
                r#"tracing::debug!(event = "a.b", x = f(a, b), y = c.map(|d, e| g), "m",)"#,
                "debug a.b: x y",
            ),
            (
                r#"tracing::trace!(target: "t", event = "a.b", x = "text", "m")"#,
                "trace a.b: x",
            ),
            ("tracing :: info ! { event = \"a.b\" , x }", "info a.b: x"),
            (
                r#"g(|| { if x { tracing::info!(event = "a.b", "m") } })"#,
                "info a.b: ",
            ),
            (
                r#"tracing::info!(event = "a.b", x = f(|| tracing::warn!(event = "c.d", "m")), "m")"#,
                "warn c.d: , info a.b: x",
            ),
            (r#"vec![tracing::info!(event = "a.b", "m")]"#, "info a.b: "),
            (r#"tracing::info!("m")"#, "info nameless: "),
            (r#"tracing::info!(%error, "m")"#, "info nameless: error"),
            (
                r#"tracing::info_span!("run", run.id = 7, x)"#,
                "info span run: run.id x",
            ),
            (
                r#"tracing::debug_span!(parent: None, "run")"#,
                "debug span run: ",
            ),
        ] {
            assert_eq!(found(source).join(", "), expected, "{source}");
        }
    }

    #[test]
    fn a_level_that_a_macro_fills_in_is_found() {
        let source = r#"
            macro_rules! closing {
                ($level:ident) => { tracing::$level!(event = "a.b", x = %y, "m") };
            }
            if z { closing!(info) } else { closing!(error) }
            closing!(not, a, level);"#;
        assert_eq!(found(source), ["info+error a.b: x"]);
    }

    #[test]
    fn what_is_no_call_or_a_tests_is_left_out() {
        for source in [
            "tracing::enabled!(Level::ERROR)",
            "tracing::field::display(x)",
            r#"g("tracing::info!(event = 1)")"#,
            r#"#[cfg(test)] mod tests { fn g() { tracing::info!("m") } }"#,
            r#"#[cfg(test)] mod tests; /* tracing::info!("m") */"#,
        ] {
            assert_eq!(found(source), Vec::<String>::new(), "{source}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_overlooked() {
        for source in [
            r#"info!("m")"#,
            r#"debug_span!("m")"#,
            r#"tracing::event!(Level::INFO, "m")"#,
            r#"tracing::info!(event = NAME, "m")"#,
            r#"tracing::info!({ event = "a.b" }, "m")"#,
            r#"tracing::info!("quoted.name" = 1, "m")"#,
            "tracing::info_span!(NAME)",
            r#"tracing::$level!(event = "a.b")"#,
        ] {
            let scanned = scan(&format!("fn f() {{ {source} }}"));
            assert!(scanned.is_err(), "{source}: {scanned:?}");
        }
    }
}
