//! Envoy's releases: those that the filter runs on, and those that are safe.

use std::fmt;

use serde_json::Value;

use super::installation::Adapter;

/// A minor release of Envoy, such as `1.40`.
type Minor = (u64, u64);

/// The oldest release that exposes the caller's certificate to a Wasm filter, by `connection.peer_certificate`.
const OLDEST_FOR_WASM: Minor = (1, 38);

/// The releases for which the dynamic module is built.
pub(crate) const OF_MODULE: [Minor; 3] = [(1, 38), (1, 39), (1, 40)];

/// The first safe release of each supported minor release.
///
/// Earlier ones do not normalize `/x/..;/admin` (CVE-2026-73551), and match routes without path parameters where RBAC
/// compares the path with them (CVE-2026-73553). Every minor release after the last one is safe from its first release.
const SAFE: [Release; 3] =
    [Release { minor: (1, 38), patch: 4 }, Release { minor: (1, 39), patch: 3 }, Release { minor: (1, 40), patch: 0 }];

/// A release of Envoy, such as `1.40.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Release {
    minor: Minor,
    patch: u64,
}

impl Release {
    /// Reads `user_agent_build_version.version`, an `envoy.type.v3.SemanticVersion`. A number that is 0 is absent.
    /// Returns `None` if there is no version.
    pub(crate) fn read(version: &Value) -> Option<Self> {
        let number = |name: &str| match &version[name] {
            Value::Null => Some(0),
            number => number.as_u64(),
        };
        let release = Self { minor: (number("major_number")?, number("minor_number")?), patch: number("patch")? };
        (release.minor != (0, 0)).then_some(release)
    }

    /// Returns the releases that the filter needs, if this is not one of them.
    pub(crate) fn lacks(self, adapter: Adapter) -> Option<String> {
        let (runs, needed) = match adapter {
            Adapter::Wasm => (self.minor >= OLDEST_FOR_WASM, format!("the Wasm filter needs {}", for_wasm())),
            Adapter::Module => {
                (OF_MODULE.contains(&self.minor), format!("the dynamic module is built for {}", for_module()))
            }
        };
        (!runs).then_some(needed)
    }

    /// Returns the first safe release of the same minor release, if this one is older.
    pub(crate) fn update(self) -> Option<Self> {
        SAFE.into_iter().find(|safe| safe.minor == self.minor && safe.patch > self.patch)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", minor(self.minor), self.patch)
    }
}

fn minor((major, minor): Minor) -> String {
    format!("{major}.{minor}")
}

fn for_wasm() -> String {
    format!("{} or newer", minor(OLDEST_FOR_WASM))
}

fn for_module() -> String {
    OF_MODULE.map(minor).join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Adapter, Release, SAFE, for_module, for_wasm};
    use crate::finding::FindingCode;

    const README: &str = include_str!("../../../../README.md");

    fn release(major: u64, minor: u64, patch: u64) -> Release {
        Release { minor: (major, minor), patch }
    }

    #[test]
    fn versions_are_read() {
        let read = |version| Release::read(&version).map(|release| release.to_string());
        assert_eq!(read(json!({"major_number": 1, "minor_number": 38, "patch": 2})).as_deref(), Some("1.38.2"));
        assert_eq!(read(json!({"major_number": 1, "minor_number": 40})).as_deref(), Some("1.40.0"));
        for unknown in [json!(null), json!({}), json!({"major_number": "1"}), json!({"patch": 1})] {
            assert_eq!(read(unknown.clone()), None, "{unknown}");
        }
    }

    #[test]
    fn releases_run_the_filter_or_do_not() {
        for (minor, wasm, module) in
            [(28, false, false), (37, false, false), (38, true, true), (40, true, true), (41, true, false)]
        {
            let release = release(1, minor, 9);
            assert_eq!(release.lacks(Adapter::Wasm).is_none(), wasm, "{release}");
            assert_eq!(release.lacks(Adapter::Module).is_none(), module, "{release}");
        }
        assert!(release(2, 0, 0).lacks(Adapter::Wasm).is_none());
    }

    #[test]
    fn releases_with_a_known_bypass_have_an_update() {
        let update = |minor, patch| release(1, minor, patch).update().map(|release| release.to_string());
        for (minor, patch, expected) in
            [(38, 0, Some("1.38.4")), (38, 3, Some("1.38.4")), (38, 4, None), (39, 2, Some("1.39.3"))]
        {
            assert_eq!(update(minor, patch).as_deref(), expected, "1.{minor}.{patch}");
        }
        for (minor, patch) in [(38, 12), (39, 3), (40, 0), (41, 0)] {
            assert_eq!(update(minor, patch), None, "1.{minor}.{patch}");
        }
    }

    #[test]
    fn the_readme_lists_the_same_releases() {
        let row = format!("\n| Envoy | {} | {} |\n", for_wasm(), for_module());
        assert!(README.contains(&row), "{row}");
        let [first, second, third] = SAFE;
        let production =
            format!("In production, use Envoy {first}, {second}, {third}, or a later patch release of these");
        assert!(README.replace('\n', " ").contains(&production), "{production}");
        let update = format!("Update Envoy to {first}, {second}, {third}, or a later patch release of these.");
        assert_eq!(FindingCode::EnvoyVulnerable.remedy(), update);
    }
}
