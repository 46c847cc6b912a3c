//! Standard output and standard error.

use std::io::{self, StderrLock, StdoutLock, Write};

use anstream::AutoStream;

use crate::progress;

/// A stream that drops its output after the reader closed the pipe, as `head` does. The exit status remains that of the
/// result.
pub(crate) struct Stream<W>(W);

pub(crate) fn stdout() -> Stream<AutoStream<StdoutLock<'static>>> {
    Stream(anstream::stdout().lock())
}

pub(crate) fn stderr() -> Stream<AutoStream<StderrLock<'static>>> {
    Stream(anstream::stderr().lock())
}

impl<W: Write> Write for Stream<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        progress::end();
        or_dropped(self.0.write(bytes), bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        or_dropped(self.0.flush(), ())
    }
}

fn or_dropped<T>(written: io::Result<T>, dropped: T) -> io::Result<T> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(dropped),
        written => written,
    }
}
