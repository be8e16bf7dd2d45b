//! How much a JSON text comes to once it is decoded, reckoned before anything is.
//!
//! A few bytes can stand for hundreds: `{"a":{}}` has eight and takes some seven hundred. What must hold: the reckoning is one
//! pass over the bytes, takes no memory of its own, panics for no input, and is never below what decoding takes.

/// What a value takes where it stands, and the least that a text takes elsewhere.
const VALUE: usize = 72;
/// The least that a member's name takes.
const NAME: usize = 32;
/// What an array of few values takes beside them.
const ARRAY: usize = 144;
/// What an object of few members takes beside them: a node of a B-tree has room for eleven.
const OBJECT: usize = 640;

/// What stands in a JSON text. Of a text that is no JSON it says at least what stands before the first mistake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// How many arrays and objects stand within each other.
    pub(super) depth: usize,
    /// Commas: each comes before another value.
    commas: usize,
    /// Members of objects.
    members: usize,
    /// Arrays with something in them.
    arrays: usize,
    /// Objects with something in them.
    objects: usize,
    /// Bytes within quotes.
    text: usize,
}

impl Extent {
    /// Looks through a text.
    pub(super) fn of(json: &[u8]) -> Self {
        let mut extent = Self::default();
        let (mut depth, mut opened, mut quoted, mut escaped) = (0_usize, None, false, false);
        for &byte in json {
            if quoted {
                extent.text += 1;
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => quoted = false,
                    _ => {}
                }
                continue;
            }
            if byte.is_ascii_whitespace() {
                continue;
            }
            // Something follows upon what was opened: then it is not empty.
            match (opened.take(), byte) {
                (Some(b'['), byte) if byte != b']' => extent.arrays += 1,
                (Some(b'{'), byte) if byte != b'}' => extent.objects += 1,
                _ => {}
            }
            match byte {
                b'"' => quoted = true,
                b',' => extent.commas += 1,
                b':' => extent.members += 1,
                b'[' | b'{' => {
                    opened = Some(byte);
                    depth += 1;
                    extent.depth = extent.depth.max(depth);
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        extent
    }

    /// The most memory, in bytes, that what is decoded takes.
    pub(super) fn memory(&self) -> usize {
        self.values() * VALUE
            + self.members * NAME
            + self.arrays * ARRAY
            + self.objects * OBJECT
            + self.text
    }

    /// How many values there are, in whatever they stand.
    fn values(&self) -> usize {
        1 + self.commas + self.arrays + self.objects
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// The same, as `serde_json` sees it.
    fn counted(value: &Value) -> Extent {
        let mut extent = Extent::default();
        match value {
            Value::Array(values) => {
                extent.depth = 1;
                extent.arrays = usize::from(!values.is_empty());
                extent.commas = values.len().saturating_sub(1);
                for value in values {
                    add(&mut extent, value);
                }
            }
            Value::Object(members) => {
                extent.depth = 1;
                extent.objects = usize::from(!members.is_empty());
                extent.commas = members.len().saturating_sub(1);
                extent.members = members.len();
                for (name, value) in members {
                    extent.text += quoted(name);
                    add(&mut extent, value);
                }
            }
            Value::String(text) => extent.text = quoted(text),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        extent
    }

    fn add(to: &mut Extent, value: &Value) {
        let inner = counted(value);
        to.depth = to.depth.max(1 + inner.depth);
        to.commas += inner.commas;
        to.members += inner.members;
        to.arrays += inner.arrays;
        to.objects += inner.objects;
        to.text += inner.text;
    }

    /// As it is written, with the quote that ends it.
    fn quoted(text: &str) -> usize {
        serde_json::to_string(text).unwrap().len() - 1
    }

    fn values(value: &Value) -> usize {
        1 + match value {
            Value::Array(inner) => inner.iter().map(values).sum(),
            Value::Object(inner) => inner.values().map(values).sum(),
            _ => 0,
        }
    }

    fn documents() -> impl Strategy<Value = Value> {
        let text = "[ -~\"\\\\\n\u{e9}\u{1f600}{}\\[\\],:]{0,8}";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(8, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(text, inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_sees_what_serde_json_sees(document in documents()) {
            for written in [serde_json::to_string(&document), serde_json::to_string_pretty(&document)] {
                let extent = Extent::of(written.unwrap().as_bytes());
                prop_assert_eq!(extent, counted(&document));
                prop_assert_eq!(extent.values(), values(&document));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            Extent::of(&bytes).memory();
        }

        #[test]
        fn what_is_cut_or_goes_on_is_never_less(document in documents(), at in 0_usize..200, after in "[\\[\\]{},:\"a]{0,20}") {
            let written = document.to_string();
            let cut = &written.as_bytes()[..at.min(written.len())];
            let (cut, whole) = (Extent::of(cut), Extent::of(written.as_bytes()));
            let more = Extent::of((written + &after).as_bytes());
            prop_assert!(cut.depth <= whole.depth && cut.memory() <= whole.memory());
            prop_assert!(whole.depth <= more.depth && whole.memory() <= more.memory());
        }
    }

    #[test]
    fn depth_counts_what_stands_within_each_other() {
        for (json, depth) in [("0", 0), ("[]", 1), ("[[],[]]", 2), ("{\"[[[\":[{}]}", 3)] {
            assert_eq!(Extent::of(json.as_bytes()).depth, depth, "{json}");
        }
    }
}
