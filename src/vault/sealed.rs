//! The sealed form: its layout and its two layers of encryption.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand,
};
use zeroize::Zeroizing;

use super::{
    Error,
    keyring::{KEY_LEN, MasterKey},
};
use crate::sabotage::{self, Safeguard};

const VERSION: u8 = 1;
const TAG_LEN: usize = 16;
const WRAPPED_LEN: usize = KEY_LEN + TAG_LEN;

/// The key that one secret is encrypted with, zeroized when it is dropped.
pub(super) struct DataKey(Zeroizing<[u8; KEY_LEN]>);

#[cfg(test)]
lacks!(DataKey: Clone, std::fmt::Debug, std::fmt::Display, serde::Serialize);

impl DataKey {
    fn random() -> Result<Self, Error> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        rand::fill(key.as_mut_slice()).map_err(|_| Error::Crypto)?;
        Ok(Self(key))
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

/// What a secret is bound to.
pub(super) struct Bound<'a> {
    pub(super) project: &'a str,
    pub(super) key_id: &'a str,
    pub(super) issuer_id: Option<&'a str>,
}

impl Bound<'_> {
    pub(super) fn associated_data(&self, domain: &str) -> Vec<u8> {
        let mut data = Vec::new();
        if sabotage::is_out(Safeguard::AssociatedData) {
            return data;
        }
        push(&mut data, domain);
        data.push(VERSION);
        push(&mut data, self.project);
        push(&mut data, self.key_id);
        match self.issuer_id {
            None => data.push(0),
            Some(issuer_id) => {
                data.push(1);
                push(&mut data, issuer_id);
            }
        }
        data
    }
}

fn push(data: &mut Vec<u8>, text: &str) {
    let length = u32::try_from(text.len()).expect("an id has less than 4 GiB");
    data.extend_from_slice(&length.to_be_bytes());
    data.extend_from_slice(text.as_bytes());
}

pub(super) const DATA_KEY: &str = "catalog-sync data key";
pub(super) const PRIVATE_KEY: &str = "catalog-sync private key";

pub(super) fn seal(master: &MasterKey, bound: &Bound<'_>, secret: &[u8]) -> Result<Vec<u8>, Error> {
    let data_key = DataKey::random()?;
    let mut sealed = wrap(master, bound, &data_key)?;
    encrypt(
        &data_key.0,
        &bound.associated_data(PRIVATE_KEY),
        secret,
        &mut sealed,
    )?;
    Ok(sealed)
}

/// The head of the sealed form: all but the secret.
fn wrap(master: &MasterKey, bound: &Bound<'_>, data_key: &DataKey) -> Result<Vec<u8>, Error> {
    let mut sealed = vec![VERSION];
    sealed.push(u8::try_from(master.id.len()).expect("an id has 32 characters at most"));
    sealed.extend_from_slice(master.id.as_bytes());
    let associated_data = bound.associated_data(DATA_KEY);
    encrypt(
        &master.key,
        &associated_data,
        data_key.0.as_slice(),
        &mut sealed,
    )?;
    Ok(sealed)
}

/// Appends a fresh nonce, the ciphertext and its tag.
fn encrypt(
    key: &[u8; KEY_LEN],
    associated_data: &[u8],
    plaintext: &[u8],
    sealed: &mut Vec<u8>,
) -> Result<(), Error> {
    let mut nonce = [0; NONCE_LEN];
    rand::fill(&mut nonce).map_err(|_| Error::Crypto)?;
    // With room for the tag, so that no plaintext is left behind by a move.
    let mut buffer = Zeroizing::new(Vec::with_capacity(plaintext.len() + TAG_LEN));
    buffer.extend_from_slice(plaintext);
    cipher(key)?
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(associated_data),
            &mut *buffer,
        )
        .map_err(|_| Error::Crypto)?;
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(&buffer);
    Ok(())
}

fn cipher(key: &[u8; KEY_LEN]) -> Result<LessSafeKey, Error> {
    UnboundKey::new(&AES_256_GCM, key)
        .map(LessSafeKey::new)
        .map_err(|_| Error::Crypto)
}

/// A sealed secret, taken apart.
pub(super) struct Parts<'a> {
    pub(super) master_key_id: &'a str,
    wrapped: Encrypted<'a>,
    secret: Encrypted<'a>,
}

struct Encrypted<'a> {
    nonce: &'a [u8; NONCE_LEN],
    ciphertext: &'a [u8],
}

impl<'a> Parts<'a> {
    pub(super) fn parse(sealed: &'a [u8]) -> Result<Self, Error> {
        match sealed.first() {
            Some(&VERSION) => Self::of_version_1(sealed).ok_or(Error::DoesNotOpen),
            Some(&version) => Err(Error::UnknownVersion { version }),
            None => Err(Error::DoesNotOpen),
        }
    }

    fn of_version_1(sealed: &'a [u8]) -> Option<Self> {
        let (&[_, id_len], rest) = sealed.split_first_chunk()?;
        let (id, rest) = rest.split_at_checked(usize::from(id_len))?;
        let (wrap_nonce, rest) = rest.split_first_chunk()?;
        let (wrapped, rest) = rest.split_at_checked(WRAPPED_LEN)?;
        let (nonce, ciphertext) = rest.split_first_chunk()?;
        Some(Self {
            master_key_id: str::from_utf8(id).ok()?,
            wrapped: Encrypted {
                nonce: wrap_nonce,
                ciphertext: wrapped,
            },
            secret: Encrypted { nonce, ciphertext },
        })
    }

    pub(super) fn open(
        &self,
        master: &MasterKey,
        bound: &Bound<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let data_key = self.data_key(master, bound)?;
        self.secret
            .decrypt(&data_key.0, &bound.associated_data(PRIVATE_KEY))
    }

    /// The same secret, with its data key under another master key.
    pub(super) fn rewrap(
        &self,
        from: &MasterKey,
        to: &MasterKey,
        bound: &Bound<'_>,
    ) -> Result<Vec<u8>, Error> {
        let mut sealed = wrap(to, bound, &self.data_key(from, bound)?)?;
        sealed.extend_from_slice(self.secret.nonce);
        sealed.extend_from_slice(self.secret.ciphertext);
        Ok(sealed)
    }

    pub(super) fn data_key(&self, master: &MasterKey, bound: &Bound<'_>) -> Result<DataKey, Error> {
        let bytes = self
            .wrapped
            .decrypt(&master.key, &bound.associated_data(DATA_KEY))?;
        let mut key = Zeroizing::new([0; KEY_LEN]);
        if bytes.len() != KEY_LEN {
            return Err(Error::DoesNotOpen);
        }
        key.copy_from_slice(&bytes);
        Ok(DataKey(key))
    }
}

impl Encrypted<'_> {
    fn decrypt(
        &self,
        key: &[u8; KEY_LEN],
        associated_data: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut buffer = Zeroizing::new(self.ciphertext.to_vec());
        let length = cipher(key)?
            .open_in_place(
                Nonce::assume_unique_for_key(*self.nonce),
                Aad::from(associated_data),
                &mut buffer,
            )
            .map_err(|_| Error::DoesNotOpen)?
            .len();
        buffer.truncate(length);
        Ok(buffer)
    }
}
