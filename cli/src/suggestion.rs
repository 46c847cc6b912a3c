//! Suggestions for words that are probably misspelled.

use spiffe_authz::diagnostic::{Code, Diagnostic};

/// Returns the known word that is most similar to `word`, if one is similar.
pub(crate) fn similar<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let distance = |known: &str| strsim::osa_distance(&word.to_lowercase(), &known.to_lowercase());
    let (distance, closest) = known.into_iter().map(|known| (distance(known), known)).min()?;
    // One edit for each three characters: `pear` is similar to `peer`, and `a` is similar to nothing.
    (distance <= word.chars().count() / 3).then_some(closest)
}

/// Returns the next step after an unknown word: the similar known word, or all of them.
pub(crate) fn hint(word: &str, known: &[&str]) -> String {
    let quoted = |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    match (similar(word, known.iter().copied()), known) {
        (Some(closest), _) => format!("did you mean `{closest}`?"),
        (None, [only]) => format!("expected `{only}`"),
        (None, known) => format!("expected one of {}", quoted(known)),
    }
}

/// Returns the next step for a diagnostic: the similar allowed name, or the help of the diagnostic.
pub(crate) fn of_diagnostic(Diagnostic { code, message, help, .. }: &Diagnostic) -> String {
    let quoted = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let lists_names = help.starts_with("expected one of ") || help.contains("supported fields are ");
    if matches!(code, Code::UnknownField | Code::InvalidValue) && lists_names {
        let (unknown, known) = (quoted(message), quoted(help));
        let closest = unknown.first().and_then(|unknown| similar(unknown, known.iter().map(String::as_str)));
        if let Some(closest) = closest {
            return format!("did you mean `{closest}`?");
        }
    }
    help.clone()
}

/// Returns `true` if a diagnostic is about the name of a field, and not about its value.
pub(crate) fn is_about_name(diagnostic: &Diagnostic) -> bool {
    matches!(diagnostic.code, Code::UnknownField | Code::Unsupported | Code::DuplicateField)
}

#[cfg(test)]
mod tests {
    use super::{hint, similar};

    #[test]
    fn similar_words_are_suggested() {
        for (word, expected) in [
            ("pear", Some("peer")),
            ("Path", Some("path")),
            ("mehtod", Some("method")),
            ("case", None),
            ("a", None),
            ("authority", None),
        ] {
            assert_eq!(similar(word, ["peer", "method", "path"]), expected, "{word}");
        }
        assert_eq!(similar("x", []), None);
        assert_eq!(hint("alow", &["allow", "deny"]), "did you mean `allow`?");
        assert_eq!(hint("x", &["allow", "deny"]), "expected one of `allow`, `deny`");
    }
}
