//! One Envoy at one moment, from its pages `config_dump`, `certs` and `stats`.

use std::io;
use std::path::Path;

use super::certs::{self, ContextCertificates};
use super::config_dump::{ConfigDump, Section};
use super::message::{Cluster, Secret};
use super::moment::Moment;
use super::stats::Stats;
use crate::input;

/// A page as Envoy wrote it.
#[derive(Debug, Default)]
pub(crate) struct Page {
    bytes: Vec<u8>,
    /// The file with the page, for errors; `None` if the page comes from Envoy.
    file: Option<String>,
}

impl From<Vec<u8>> for Page {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, file: None }
    }
}

impl Page {
    /// Reads a saved page.
    pub(crate) fn of_file(file: &Path) -> io::Result<Self> {
        Ok(Self { bytes: input::read(file)?, file: Some(input::name(file)) })
    }

    /// Parses the page. The error names its file.
    fn parse<T>(self, parse: impl FnOnce(Vec<u8>) -> io::Result<T>) -> io::Result<T> {
        let Self { bytes, file } = self;
        parse(bytes).map_err(|error| match file {
            Some(file) => io::Error::new(error.kind(), format!("{file}: {error}")),
            None => error,
        })
    }
}

/// The pages of one Envoy.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    pub(crate) config_dump: Page,
    pub(crate) certs: Option<Page>,
    pub(crate) stats: Option<Page>,
    /// The time of the request, or `None` for saved pages.
    pub(crate) taken: Option<i64>,
}

/// One Envoy at one moment.
#[derive(Debug, Default)]
pub(crate) struct Envoy {
    pub(crate) dump: ConfigDump,
    pub(crate) taken: Moment,
    /// The certificates in use, or `None` without the page `certs`.
    pub(crate) certificates: Option<Vec<ContextCertificates>>,
    pub(crate) stats: Stats,
}

impl Envoy {
    /// Reads the pages.
    ///
    /// # Errors
    /// Returns an error that names the page and the problem if Envoy did not write it.
    pub(crate) fn read(pages: Pages) -> io::Result<Self> {
        let Pages { config_dump, certs, stats, taken } = pages;
        let dump = config_dump.parse(ConfigDump::read)?;
        let certificates = certs.map(|page| page.parse(certs::read)).transpose()?;
        let stats = stats.map(|page| page.parse(Stats::read)).transpose()?.unwrap_or_default();
        let uptime = stats.count("server.uptime").known();
        let saved = || dump.started.zip(uptime).map(|(started, uptime)| started.saturating_add_unsigned(uptime));
        let taken = match taken.or_else(saved) {
            Some(moment) => Moment::At(moment),
            None => Moment::NotBefore(dump.latest.unwrap_or(i64::MIN)),
        };
        Ok(Self { dump, taken, certificates, stats })
    }

    /// Returns a secret that arrived.
    pub(crate) fn secret(&self, name: &str) -> Option<&Secret> {
        self.dump.secrets.iter().find(|secret| secret.name == name)
    }

    /// Returns a cluster that serves.
    pub(crate) fn cluster(&self, name: &str) -> Option<&Cluster> {
        self.dump.clusters.iter().find(|cluster| cluster.name == name)
    }

    /// Returns `true` if the dump contains this section.
    pub(crate) fn has(&self, section: Section) -> bool {
        self.dump.sections.contains(&section)
    }
}
