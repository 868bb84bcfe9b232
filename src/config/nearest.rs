//! What a misspelt word was probably meant to be.

/// The candidate that resembles `word` most, if any does well enough to be worth suggesting.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (likeness(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness >= 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// From 0, nothing alike, to 1, the same.
fn likeness(a: &str, b: &str) -> f64 {
    strsim::normalized_damerau_levenshtein(a, b).max(strsim::jaro_winkler(a, b) - 0.15)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_are_recognized_and_strangers_are_not() {
        let words = ["jwks_url", "discovery", "file", "inline", "reject", "accept"];
        for (word, expected) in [
            ("jwk_url", Some("jwks_url")),
            ("jwks_uri", Some("jwks_url")),
            ("Discovery", Some("discovery")),
            ("rejct", Some("reject")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, words), expected, "{word}");
        }
    }
}
