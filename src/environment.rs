//! The environment of the process. It is read here and nowhere else.

use std::ffi::OsString;

use zeroize::Zeroizing;

/// What variables of ours begin with.
pub(crate) const PREFIX: &str = "CATALOG_SYNC_";

/// All variables; a value that is not UTF-8 is read as far as it is.
pub fn all() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        Some((name, value.to_string_lossy().into_owned()))
    })
}

/// The names of the variables of ours, in which there may be passwords.
pub(crate) fn own_names() -> impl Iterator<Item = OsString> {
    std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()))
}

/// One variable.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// One variable that is a secret, in a buffer that is zeroized.
pub(crate) fn secret(name: &str) -> Option<Zeroizing<Vec<u8>>> {
    variable(name).map(|value| Zeroizing::new(value.into_encoded_bytes()))
}
