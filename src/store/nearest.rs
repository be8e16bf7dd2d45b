//! Which project somebody may have meant.

use crate::project::ProjectId;

/// Below this likeness a name is no help. `acme` and `acme-inc` are at 0.9, `acme` and `zenith` at 0.
const LIKE_ENOUGH: f64 = 0.8;

/// The most similar of the names, if any is similar; the first of several.
pub(super) fn nearest(
    wanted: &ProjectId,
    names: impl IntoIterator<Item = String>,
) -> Option<ProjectId> {
    let wanted = wanted.as_str().to_lowercase();
    names
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&wanted, &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness >= LIKE_ENOUGH)
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .and_then(|(_, name)| name.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_finds_its_name_and_a_stranger_finds_none() {
        let names = ["zenith", "acme-inc", "Acme"].map(str::to_owned);
        let ask = |wanted: &str| nearest(&wanted.parse().unwrap(), names.clone());
        assert_eq!(ask("acne").unwrap().as_str(), "Acme");
        assert_eq!(ask("acme-icn").unwrap().as_str(), "acme-inc");
        assert_eq!(ask("quux"), None);
    }
}
