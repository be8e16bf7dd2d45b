//! Takes a safeguard out, for tests that must notice: `tests/sabotage` runs them.
//!
//! What must hold: only a debug build with the feature `simulator` reads the variable. A release build has the constant `false`
//! here and none of this, and a package is built without the feature besides. The binary refuses the variable in any build, as one
//! that it does not know.

/// What can be taken out. It is named in `CATALOG_SYNC_TEST__SABOTAGE` as here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Safeguard {
    /// That a write needs the lease's epoch and token to be the project's.
    Fence,
    /// That removals are held.
    Guard,
    /// What a ciphertext is bound to.
    AssociatedData,
    /// That further pages are read from the client's own origin alone.
    Origin,
}

/// Whether it is out.
#[cfg(all(feature = "simulator", debug_assertions))]
pub(crate) fn is_out(safeguard: Safeguard) -> bool {
    use std::sync::OnceLock;

    static OUT: OnceLock<Option<Safeguard>> = OnceLock::new();
    let out = OUT.get_or_init(|| {
        let all = [
            Safeguard::Fence,
            Safeguard::Guard,
            Safeguard::AssociatedData,
            Safeguard::Origin,
        ];
        let named = crate::environment::variable("CATALOG_SYNC_TEST__SABOTAGE")?;
        all.into_iter().find(|it| *named == *format!("{it:?}"))
    });
    *out == Some(safeguard)
}

/// Whether it is out: never.
#[cfg(not(all(feature = "simulator", debug_assertions)))]
pub(crate) const fn is_out(_: Safeguard) -> bool {
    false
}
