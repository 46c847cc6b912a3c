//! Random requests as the bytes of HTTP/1.1.

use fastrand::Rng;

/// A request. Every part is one of a few choices, so that policies often match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) host: &'static str,
    /// The header lines, without the token.
    pub(super) lines: Vec<&'static [u8]>,
    /// The index of the token.
    pub(super) token: Option<usize>,
}

const METHODS: [&str; 3] = ["GET", "PUT", "POST"];
const PATHS: [&str; 24] = [
    "/", "/a", "/a/", "/a/b", "/a/x/b", "/a/x/y/b", "/a//b", "//a", "/a/../b", "/a/./b", "/a%2fb", "/a%2Fb", "/a%5cb",
    "/a;x", "/a;x/b", "/a?x=/b", "/b?/a", "/a/%20/b", "/a/*/b", "/a*", "/a*/b", "/A", "/ab", "/a/x?b",
];
const HOSTS: [&str; 8] =
    ["a.example", "A.Example", "a.example:8443", "b.example", "a.example.", "x@a.example", "a.example.:8443", "x"];
const LINES: [&[u8]; 14] = [
    b"x-role: a",
    b"x-role: b",
    b"x-role: ab",
    b"x-role: a,b",
    b"x-role: ab, b",
    b"x-role: b,a",
    b"x-role:",
    b"X-Role: A",
    b"x-role: a\xff",
    b"x-other: x",
    b"x-other:",
    b"x-forwarded-for: 203.0.113.7",
    b"x-forwarded-for: 10.0.0.1, 203.0.113.9",
    b"x-forwarded-for: 2001:db8::1",
];

pub(super) fn random_sample(rng: &mut Rng) -> Sample {
    let count = [0, 0, 1, 1, 2, 3][rng.usize(..6)];
    Sample {
        method: METHODS[rng.usize(..METHODS.len())],
        path: PATHS[rng.usize(..PATHS.len())],
        host: HOSTS[rng.usize(..HOSTS.len())],
        lines: (0..count).map(|_| LINES[rng.usize(..LINES.len())]).collect(),
        token: [None, None, Some(0), Some(1), Some(2)][rng.usize(..5)],
    }
}

impl Sample {
    pub(super) fn bytes(&self, tokens: &[String]) -> Vec<u8> {
        let mut bytes =
            format!("{} {} HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\n", self.method, self.path, self.host)
                .into_bytes();
        for line in &self.lines {
            bytes.extend([line, b"\r\n".as_slice()].concat());
        }
        if let Some(token) = self.token.and_then(|token| tokens.get(token)) {
            bytes.extend(format!("authorization: Bearer {token}\r\n").into_bytes());
        }
        bytes.extend(b"\r\n");
        bytes
    }

    /// Returns `true` if a header that policies use has several lines.
    pub(super) fn repeats_header(&self) -> bool {
        let name = |line: &[u8]| line.split(|byte| *byte == b':').next().unwrap_or_default().to_ascii_lowercase();
        let names: Vec<_> = self.lines.iter().map(|line| name(line)).collect();
        names.iter().enumerate().any(|(position, name)| names[..position].contains(name))
    }

    /// Returns `true` if a header line is a list with commas.
    pub(super) fn joins_header(&self) -> bool {
        self.lines.iter().any(|line| line.starts_with(b"x-role:") && line.contains(&b','))
    }

    /// Returns `true` if the path has parameters.
    pub(super) fn has_path_parameters(&self) -> bool {
        self.path.contains(';')
    }

    /// Returns `true` if the host has user information or a trailing dot.
    pub(super) fn has_decorated_host(&self) -> bool {
        self.host.contains('@') || self.host.contains(".:") || self.host.ends_with('.')
    }

    /// Returns requests with one part less.
    pub(super) fn smaller(&self) -> Vec<Self> {
        let plain = Self { method: "GET", path: "/", host: "x", lines: Vec::new(), token: None };
        let mut smaller = vec![
            Self { method: plain.method, ..self.clone() },
            Self { path: plain.path, ..self.clone() },
            Self { host: plain.host, ..self.clone() },
            Self { token: None, ..self.clone() },
        ];
        for position in 0..self.lines.len() {
            let mut fewer = self.clone();
            fewer.lines.remove(position);
            smaller.push(fewer);
        }
        smaller.retain(|sample| sample != self);
        smaller
    }
}
