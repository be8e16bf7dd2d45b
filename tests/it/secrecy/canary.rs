//! Secrets in every form in which they could have been written, and the search for them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt, fs, io,
    path::Path,
};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};

/// A form is searched for in pieces of this length, so that a part of a secret is found as well.
const PIECE: usize = 16;

/// A list of numbers has four characters a byte or so, and short lists of them are no rarity.
const DECIMAL_PIECE: usize = 48;

/// A secret.
pub(crate) struct Canary {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

impl Canary {
    pub(crate) fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            bytes: bytes.into(),
        }
    }

    /// Every form in which it is looked for.
    pub(crate) fn forms(&self) -> Vec<(String, Vec<u8>)> {
        let bytes = &self.bytes;
        let hex = |digits: &[u8; 16]| -> Vec<u8> {
            bytes
                .iter()
                .flat_map(|&byte| [byte >> 4, byte & 15])
                .map(|digit| digits[usize::from(digit)])
                .collect()
        };
        let decimals: Vec<String> = bytes.iter().map(u8::to_string).collect();
        let mut forms = vec![
            ("raw".to_owned(), bytes.clone()),
            ("hex".to_owned(), hex(b"0123456789abcdef")),
            ("HEX".to_owned(), hex(b"0123456789ABCDEF")),
            ("decimal".to_owned(), decimals.join(", ").into_bytes()),
            (
                "escaped".to_owned(),
                bytes.escape_ascii().to_string().into_bytes(),
            ),
        ];
        for before in 0..3 {
            let padded = [vec![0; before], bytes.clone()].concat();
            for (name, engine) in [
                ("base64", BASE64_STANDARD_NO_PAD),
                ("base64url", BASE64_URL_SAFE_NO_PAD),
            ] {
                let mut text = engine.encode(&padded).into_bytes();
                // The first and the last character may tell of what stands beside it as well.
                text.drain(..(before * 8).div_ceil(6));
                if padded.len() % 3 != 0 {
                    text.pop();
                }
                forms.push((format!("{name} after {before}"), text));
            }
        }
        forms
    }
}

/// A piece of a form of a canary, or what must be seen where nothing was overlooked.
struct Needle {
    piece: Vec<u8>,
    what: What,
}

enum What {
    Canary { name: String, form: String },
    Witness,
}

/// A canary that was found.
#[derive(Debug)]
pub(crate) struct Hit {
    pub(crate) file: String,
    pub(crate) offset: usize,
    pub(crate) canary: String,
    pub(crate) form: String,
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            offset,
            canary,
            form,
        } = self;
        write!(f, "{file} at {offset}: {canary}, {form}")
    }
}

/// What was looked through of a place.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Looked {
    pub(crate) files: usize,
    pub(crate) bytes: usize,
    /// How often the witness was seen.
    pub(crate) witnesses: usize,
}

/// A search for canaries in whatever is shown to it.
pub(crate) struct Search {
    needles: Vec<Needle>,
    /// Needles by their first four bytes.
    by_head: HashMap<u32, Vec<usize>>,
    /// Whether a needle may begin so, by a hash of four bytes: nearly all bytes need no more than this look.
    begins: Vec<bool>,
    pub(crate) hits: Vec<Hit>,
    pub(crate) looked: BTreeMap<&'static str, Looked>,
}

fn slot(head: u32) -> usize {
    (head.wrapping_mul(0x9e37_79b1) >> 12) as usize
}

impl Search {
    /// A search for these, which counts where the witness is seen.
    pub(crate) fn new(canaries: &[Canary], witness: &str) -> Self {
        let mut search = Self {
            needles: Vec::new(),
            by_head: HashMap::new(),
            begins: vec![false; 1 << 20],
            hits: Vec::new(),
            looked: BTreeMap::new(),
        };
        search.add(witness.as_bytes(), What::Witness);
        let mut known = BTreeSet::new();
        for canary in canaries {
            assert!(canary.bytes.len() >= PIECE, "{} is too short", canary.name);
            for (form, text) in canary.forms() {
                let length = if form == "decimal" {
                    DECIMAL_PIECE
                } else {
                    PIECE
                };
                for piece in text.chunks_exact(length) {
                    if known.insert(piece.to_vec()) {
                        let (name, form) = (canary.name.clone(), form.clone());
                        search.add(piece, What::Canary { name, form });
                    }
                }
            }
        }
        search
    }

    fn add(&mut self, piece: &[u8], what: What) {
        let head = piece[..4]
            .iter()
            .fold(0, |head, &byte| head << 8 | u32::from(byte));
        self.begins[slot(head)] = true;
        self.by_head
            .entry(head)
            .or_default()
            .push(self.needles.len());
        let piece = piece.to_vec();
        self.needles.push(Needle { piece, what });
    }

    /// Looks through these bytes.
    pub(crate) fn through(&mut self, place: &'static str, file: &str, bytes: &[u8]) {
        let looked = self.looked.entry(place).or_default();
        looked.files += 1;
        looked.bytes += bytes.len();
        let mut head = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            head = head << 8 | u32::from(byte);
            if !self.begins[slot(head)] || at < 3 {
                continue;
            }
            let offset = at - 3;
            for &index in self.by_head.get(&head).into_iter().flatten() {
                let Needle { piece, what } = &self.needles[index];
                if !bytes[offset..].starts_with(piece) {
                    continue;
                }
                match what {
                    What::Witness => looked.witnesses += 1,
                    What::Canary { name, form } => self.hits.push(Hit {
                        file: file.to_owned(),
                        offset,
                        canary: name.clone(),
                        form: form.clone(),
                    }),
                }
            }
        }
    }

    /// Looks through every file under a folder, but for those that hold the secrets on purpose.
    pub(crate) fn through_folder(
        &mut self,
        place: &'static str,
        folder: &Path,
        is_given: impl Fn(&Path) -> bool,
    ) {
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let Some(files) = there(fs::read_dir(&folder)) else {
                continue;
            };
            for file in files {
                let file = file.unwrap();
                let path = file.path();
                let kind = file.file_type().unwrap();
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file()
                    && !is_given(&path)
                    && let Some(bytes) = there(fs::read(&path))
                {
                    self.through(place, &path.display().to_string(), &bytes);
                }
            }
        }
    }

    /// Nothing was found, and nothing overlooked: each place had as many files and bytes, with the witness where it must be.
    #[track_caller]
    pub(crate) fn assert_clean(&self, expected: &[(&str, usize, usize, bool)]) {
        let mut shown = BTreeMap::new();
        for hit in &self.hits {
            shown
                .entry((&hit.file, &hit.canary, &hit.form))
                .or_insert_with(|| hit.to_string());
        }
        let shown: Vec<String> = shown.into_values().collect();
        assert!(
            shown.is_empty(),
            "{} hits, the first of each kind:\n{}",
            self.hits.len(),
            shown.join("\n")
        );
        for &(place, files, bytes, has_witness) in expected {
            let looked = self.looked.get(place).copied().unwrap_or_default();
            assert!(
                looked.files >= files
                    && looked.bytes >= bytes
                    && (looked.witnesses > 0 || !has_witness),
                "{place}: {looked:?}, and {files} files with {bytes} bytes were expected"
            );
        }
        assert_eq!(self.looked.len(), expected.len(), "{:?}", self.looked);
    }
}

/// A server may have removed a file since it was listed.
fn there<T>(read: io::Result<T>) -> Option<T> {
    match read {
        Ok(read) => Some(read),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn each_form_of_a_secret_is_found_in_a_log_and_told_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let secret: Vec<u8> = (0..48_u8)
        .map(|i| i.wrapping_mul(167).wrapping_add(91))
        .collect();
    let canaries = [
        Canary::new("key", secret),
        Canary::new("password", "canary+9Fq/Zr7_wTn2Kx5-Lp8"),
    ];
    for canary in &canaries {
        for (form, text) in canary.forms() {
            let mut search = Search::new(&canaries, "witness");
            let file = folder.path().join("planted.log");
            let line = b"{\"level\":\"TRACE\",\"message\":\"sent ";
            fs::write(&file, [line, text.as_slice(), b" witness\"}\n"].concat()).unwrap();
            search.through_folder("log", folder.path(), |_| false);
            let hit = search
                .hits
                .first()
                .unwrap_or_else(|| panic!("{} as {form} was overlooked", canary.name));
            assert_eq!((&hit.canary, hit.offset), (&canary.name, line.len()));
            assert!(hit.file.ends_with("planted.log"), "{hit}");
            let looked = search.looked["log"];
            assert_eq!((looked.files, looked.witnesses), (1, 1));
        }
    }
}

#[test]
fn a_secret_is_found_in_base64_of_something_longer() {
    let secret: Vec<u8> = (0..32_u8)
        .map(|i| i.wrapping_mul(59).wrapping_add(7))
        .collect();
    let canaries = [Canary::new("key", secret.clone())];
    for before in 0..6 {
        let whole = [vec![b'x'; before], secret.clone(), b"yz".to_vec()].concat();
        let mut search = Search::new(&canaries, "witness");
        search.through("log", "a", BASE64_STANDARD_NO_PAD.encode(whole).as_bytes());
        assert!(!search.hits.is_empty(), "after {before}");
    }
}

#[test]
fn what_is_no_secret_is_not_found() {
    let secret: Vec<u8> = (0..32_u8)
        .map(|i| i.wrapping_mul(59).wrapping_add(7))
        .collect();
    let mut search = Search::new(&[Canary::new("key", secret.clone())], "witness");
    let near: Vec<u8> = secret.iter().map(|byte| byte ^ 1).collect();
    search.through("log", "a", &near);
    search.through("log", "b", &secret[..PIECE - 1]);
    search.through("log", "c", b"wit");
    search.assert_clean(&[("log", 3, 50, false)]);
}

#[test]
#[should_panic(expected = "log: Looked")]
fn a_search_that_saw_too_little_fails() {
    let search = Search::new(&[], "witness");
    search.assert_clean(&[("log", 1, 1, false)]);
}
