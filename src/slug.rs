//! Enums whose variants have a stable name.

/// Defines an enum whose variants each have a slug, which operators see and which never changes, and a summary, which is a
/// sentence and the documentation of the variant.
///
/// A variant after `..` contains the value of another such enum. Its slug and its summary are those of the value.
#[macro_export]
macro_rules! slugs {
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $Enum:ident {
            $($(#[$of_variant:meta])* $variant:ident = $slug:literal, $summary:literal;)*
            $(..$outer:ident($inner:ty), $doc:literal;)*
        }
    ) => {
        $(#[$attribute])*
        $visibility enum $Enum {
            $(#[doc = $summary] $(#[$of_variant])* $variant,)*
            $(#[doc = $doc] $outer($inner),)*
        }

        impl $Enum {
            /// Returns every value, in the order of the documentation.
            $visibility fn all() -> impl Iterator<Item = Self> {
                let all = [$(Self::$variant),*].into_iter();
                $(let all = all.chain(<$inner>::all().map(Self::$outer));)*
                all
            }

            /// The stable name.
            #[must_use]
            $visibility const fn slug(self) -> &'static str {
                match self {
                    $(Self::$variant => $slug,)*
                    $(Self::$outer(inner) => inner.slug(),)*
                }
            }

            /// The meaning, as a sentence.
            #[must_use]
            $visibility const fn summary(self) -> &'static str {
                match self {
                    $(Self::$variant => $summary,)*
                    $(Self::$outer(inner) => inner.summary(),)*
                }
            }
        }
    };
}
