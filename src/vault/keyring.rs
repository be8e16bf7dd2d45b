//! The master keys at hand.

use std::sync::Arc;

use aws_lc_rs::hkdf;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::{Error, Source};

/// The length of an AES-256 key.
pub(super) const KEY_LEN: usize = 32;

/// The length of a key-check value.
const CHECK_LEN: usize = 16;

/// A master key, zeroized when it is dropped.
pub(super) struct MasterKey {
    pub(super) id: String,
    /// Boxed, so that moving it leaves no copy behind.
    pub(super) key: Box<Zeroizing<[u8; KEY_LEN]>>,
}

#[cfg(test)]
lacks!(MasterKey: Clone, std::fmt::Debug, std::fmt::Display, serde::Serialize);

/// The master keys of all sources: at least one, no id twice.
pub(super) struct Keyring {
    first: Arc<Placed>,
    others: Vec<Arc<Placed>>,
}

/// A master key, and where it was found.
struct Placed {
    key: MasterKey,
    place: String,
}

impl Keyring {
    /// Reads all sources. The very first key encrypts.
    pub(super) fn load(sources: &[Source]) -> Result<Self, Error> {
        let mut keys: Vec<Placed> = Vec::new();
        for source in sources {
            let place = source.place();
            for key in parse(&source.read(sources)?, &place)? {
                // While keys move from one source to another, both have them.
                match keys.iter().find(|other| other.key.id == key.id) {
                    None => keys.push(Placed {
                        key,
                        place: place.clone(),
                    }),
                    Some(same) if same.key.check_value()? == key.check_value()? => {}
                    Some(other) => {
                        return Err(Error::Contradiction {
                            id: key.id,
                            places: [other.place.clone(), place],
                        });
                    }
                }
            }
        }
        let mut keys = keys.into_iter().map(Arc::new);
        let first = keys.next().ok_or_else(|| Error::Empty {
            places: sources.iter().map(Source::place).collect(),
        })?;
        Ok(Self {
            first,
            others: keys.collect(),
        })
    }

    /// This one, with what only an earlier one had: a run under way may still need it. Another key of an id that was there is refused.
    pub(super) fn keeping(mut self, earlier: &Self) -> Result<Self, Error> {
        let mut only_earlier = Vec::new();
        for before in earlier.all() {
            match self.all().find(|now| now.key.id == before.key.id) {
                None => only_earlier.push(Arc::clone(before)),
                Some(now) if now.key.check_value()? == before.key.check_value()? => {}
                Some(now) => {
                    return Err(Error::Contradiction {
                        id: before.key.id.clone(),
                        places: [format!("{} before", before.place), now.place.clone()],
                    });
                }
            }
        }
        self.others.extend(only_earlier);
        Ok(self)
    }

    /// The key that encrypts.
    pub(super) fn first(&self) -> &MasterKey {
        &self.first.key
    }

    pub(super) fn find(&self, id: &str) -> Option<&MasterKey> {
        self.all()
            .map(|placed| &placed.key)
            .find(|key| key.id == id)
    }

    pub(super) fn ids(&self) -> Vec<String> {
        self.all().map(|placed| placed.key.id.clone()).collect()
    }

    /// The id of each key, and where it was found.
    pub(super) fn places(&self) -> impl Iterator<Item = (&MasterKey, &str)> {
        self.all().map(|placed| (&placed.key, &*placed.place))
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Placed>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn of_text(text: &str) -> Self {
        let place = "a test".to_owned();
        let mut keys = parse(text.as_bytes(), &place)
            .expect("the text is that of a keyring")
            .into_iter()
            .map(|key| {
                Arc::new(Placed {
                    key,
                    place: place.clone(),
                })
            });
        Self {
            first: keys.next().expect("it has a key"),
            others: keys.collect(),
        }
    }
}

/// The keys of one source, of which each line is empty, begins with `#`, or is `id:base64`.
pub(super) fn parse(bytes: &[u8], place: &str) -> Result<Vec<MasterKey>, Error> {
    let mut keys: Vec<MasterKey> = Vec::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let malformed = |what| Error::Malformed {
            place: place.to_owned(),
            line: index + 1,
            what,
        };
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let key = MasterKey::parse(line).map_err(malformed)?;
        if keys.iter().any(|other| other.id == key.id) {
            return Err(malformed("this id is there twice"));
        }
        keys.push(key);
    }
    Ok(keys)
}

impl MasterKey {
    fn parse(line: &[u8]) -> Result<Self, &'static str> {
        let mut halves = line.splitn(2, |&byte| byte == b':');
        let (Some(id), Some(base64)) = (halves.next(), halves.next()) else {
            return Err("there is no colon");
        };
        let fits = |&byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let id = str::from_utf8(id.trim_ascii_end())
            .ok()
            .filter(|id| (1..=32).contains(&id.len()) && id.as_bytes().iter().all(fits))
            .ok_or("the id is not 1 to 32 of a-z, 0-9 and '-'")?;
        // Base64 decoding asks for room in whole groups of three bytes.
        let mut decoded = Zeroizing::new([0; KEY_LEN + 3]);
        let mut key = Box::new(Zeroizing::new([0; KEY_LEN]));
        let decoded = STANDARD
            .decode_slice(base64.trim_ascii(), decoded.as_mut_slice())
            .ok()
            .and_then(|length| decoded.get(..length))
            .filter(|decoded| decoded.len() == KEY_LEN)
            .ok_or("the key is not the base64 of 32 bytes")?;
        if decoded.windows(2).all(|pair| pair.first() == pair.last()) {
            return Err("the key is one byte over and over");
        }
        key.copy_from_slice(decoded);
        Ok(Self {
            id: id.to_owned(),
            key,
        })
    }

    /// What tells this key from another of its id, and tells nothing of it: 16 bytes of HKDF-SHA256 with a label of their own, in
    /// hexadecimal digits.
    pub(super) fn check_value(&self) -> Result<String, Error> {
        struct Length;
        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                CHECK_LEN
            }
        }
        let mut value = [0; CHECK_LEN];
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"catalog-sync key check 1")
            .extract(self.key.as_slice())
            .expand(&[self.id.as_bytes()], Length)
            .and_then(|okm| okm.fill(&mut value))
            .map_err(|_| Error::Crypto)?;
        Ok(format!("{:032x}", u128::from_be_bytes(value)))
    }
}
