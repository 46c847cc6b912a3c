//! Gzip (RFC 1952): files and logs with one or more members, such as rotated logs that are joined.

use std::io::{self, BufRead, BufReader, Read as _};

use flate2::bufread::MultiGzDecoder;

/// The first bytes of a member (section 2.3.1).
const MAGIC: &[u8] = &[0x1f, 0x8b];

/// Returns `true` if a file starts with a member.
pub(crate) fn is_gzip(start: &[u8]) -> bool {
    start.starts_with(MAGIC)
}

/// Returns a reader of the content of all members. Reading fails at other bytes after a member.
fn members(reader: impl BufRead) -> MultiGzDecoder<impl BufRead> {
    MultiGzDecoder::new(reader)
}

/// Returns the content of a compressed file, and at most `limit` bytes of it.
///
/// # Errors
/// Returns an error if the file is damaged or cut, or has other bytes after a member.
pub(crate) fn decompressed(bytes: &[u8], limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    members(bytes).take(limit).read_to_end(&mut content)?;
    Ok(content)
}

/// Returns a reader of the content of a log, which can be compressed.
///
/// # Errors
/// Returns an error if the start of the log cannot be read.
pub(crate) fn reader<'r>(log: impl io::Read + 'r) -> io::Result<Box<dyn BufRead + 'r>> {
    let mut reader = BufReader::new(log);
    let is_compressed = is_gzip(reader.fill_buf()?);
    Ok(if is_compressed { Box::new(BufReader::new(members(reader))) } else { Box::new(reader) })
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read as _, Write as _};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::{decompressed, is_gzip, reader};

    fn member(text: &str) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        gzip.finish().unwrap()
    }

    /// Reads a file in both ways.
    fn both(bytes: &[u8]) -> [io::Result<Vec<u8>>; 2] {
        let mut content = Vec::new();
        let read = reader(bytes).and_then(|mut log| log.read_to_end(&mut content)).map(|_| content);
        [decompressed(bytes, 100), read]
    }

    #[test]
    fn every_member_is_read() {
        for read in both(&[member("a\n"), member(""), member("b\n")].concat()) {
            assert_eq!(read.unwrap(), b"a\nb\n");
        }
        assert_eq!(decompressed(&member("abc"), 2).unwrap(), b"ab");
        assert!(!is_gzip(b"a") && !is_gzip(b"\x1f"));
    }

    #[test]
    fn other_bytes_are_errors() {
        let whole = member("a\n");
        for bytes in [
            [&*whole, b"b\n"].concat(),
            [&*whole, b"\0"].concat(),
            [&*whole, b"\x1f"].concat(),
            [&*whole, b"\x1f\x8b"].concat(),
            whole[..whole.len() - 1].to_vec(),
        ] {
            for read in both(&bytes) {
                assert!(read.is_err(), "{bytes:?}");
            }
        }
    }
}
