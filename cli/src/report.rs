//! The result of an examination by `doctor` or `secret`.

pub(crate) mod output;

use std::collections::HashSet;

use spiffe_authz::lint::Severity;

use crate::finding::{FindingCode, FindingLayer};

/// The place of a finding. A part that does not apply is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// The listener's name.
    pub(crate) listener: Option<String>,
    /// The filter chain's name, or its number in the listener.
    pub(crate) filter_chain: Option<String>,
    /// The type of the upgrade whose requests have HTTP filters of their own.
    pub(crate) upgrade: Option<String>,
    /// The part of a route table, such as ``virtual host `a`, route `b` ``.
    pub(crate) route: Option<String>,
    /// The cluster's name.
    pub(crate) cluster: Option<String>,
    /// The secret's name.
    pub(crate) secret: Option<String>,
}

impl Place {
    /// Returns the place of a listener, or of all of Envoy if the name is empty.
    pub(crate) fn listener(name: &str) -> Self {
        Self { listener: (!name.is_empty()).then(|| name.to_owned()), ..Self::default() }
    }

    /// Returns the place of a cluster.
    pub(crate) fn cluster(name: &str) -> Self {
        Self { cluster: (!name.is_empty()).then(|| name.to_owned()), ..Self::default() }
    }

    /// Returns the secret in this place.
    pub(crate) fn secret(&self, name: &str) -> Self {
        Self { secret: Some(name.to_owned()), ..self.clone() }
    }

    /// Returns a part of a route table in this place.
    pub(crate) fn route(&self, part: &str) -> Self {
        Self { route: Some(part.to_owned()), ..self.clone() }
    }
}

/// Identifies a finding in its report, so that another finding can name it as its cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FindingId(usize);

/// A problem, in one or more places.
#[derive(Debug)]
pub(crate) struct Finding {
    id: FindingId,
    /// The kind of problem.
    pub(crate) code: FindingCode,
    /// The details.
    pub(crate) message: String,
    /// The places, or none if the problem concerns Envoy as a whole.
    pub(crate) places: Vec<Place>,
    /// The finding that explains this one.
    pub(crate) cause: Option<FindingId>,
}

impl Finding {
    /// Returns the identifier with which another finding names this one as its cause.
    pub(crate) const fn id(&self) -> FindingId {
        self.id
    }
}

/// A check that passed.
#[derive(Debug)]
pub(crate) struct Fine {
    /// The layer.
    pub(crate) layer: FindingLayer,
    /// The details.
    pub(crate) message: String,
    /// The places.
    pub(crate) places: Vec<Place>,
}

/// The result of an examination. The same message in several places is one entry.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The problems.
    pub(crate) findings: Vec<Finding>,
    /// The checks that passed.
    pub(crate) fine: Vec<Fine>,
}

impl Report {
    /// Adds a problem.
    pub(crate) fn find(&mut self, code: FindingCode, place: &Place, message: impl Into<String>) -> FindingId {
        self.find_each(code, std::slice::from_ref(place), message)
    }

    /// Adds a problem in several places.
    pub(crate) fn find_each(&mut self, code: FindingCode, places: &[Place], message: impl Into<String>) -> FindingId {
        self.follow_each(code, places, message, None)
    }

    /// Adds a problem that another finding explains, if there is one.
    pub(crate) fn follow(
        &mut self,
        code: FindingCode,
        place: &Place,
        message: impl Into<String>,
        cause: Option<FindingId>,
    ) -> FindingId {
        self.follow_each(code, std::slice::from_ref(place), message, cause)
    }

    /// Adds a problem in several places that another finding explains, if there is one.
    pub(crate) fn follow_each(
        &mut self,
        code: FindingCode,
        places: &[Place],
        message: impl Into<String>,
        cause: Option<FindingId>,
    ) -> FindingId {
        let message = message.into();
        let is_known = |known: &&mut Finding| known.code == code && known.cause == cause && known.message == message;
        if let Some(known) = self.findings.iter_mut().find(is_known) {
            add(&mut known.places, places);
            return known.id;
        }
        let id = FindingId(self.findings.len());
        let mut finding = Finding { id, code, message, places: Vec::new(), cause };
        add(&mut finding.places, places);
        self.findings.push(finding);
        id
    }

    /// Adds a check that passed.
    pub(crate) fn fine(&mut self, layer: FindingLayer, place: &Place, message: impl Into<String>) {
        self.fine_each(layer, std::slice::from_ref(place), message);
    }

    /// Adds a check that passed in several places.
    pub(crate) fn fine_each(&mut self, layer: FindingLayer, places: &[Place], message: impl Into<String>) {
        let message = message.into();
        if let Some(known) = self.fine.iter_mut().find(|known| known.layer == layer && known.message == message) {
            add(&mut known.places, places);
            return;
        }
        let mut fine = Fine { layer, message, places: Vec::new() };
        add(&mut fine.places, places);
        self.fine.push(fine);
    }

    /// Returns the first finding of one of these kinds in a place for which `is_here` returns `true`.
    pub(crate) fn first(&self, codes: &[FindingCode], is_here: impl Fn(&Place) -> bool) -> Option<FindingId> {
        let is_such = |finding: &&Finding| codes.contains(&finding.code) && finding.places.iter().any(&is_here);
        self.findings.iter().find(is_such).map(|finding| finding.id)
    }

    /// Returns the highest severity.
    pub(crate) fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.code.severity()).max()
    }

    /// Returns the number of findings of a severity.
    pub(crate) fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.code.severity() == severity).count()
    }

    /// Puts the findings that explain others first, and the others in the order of the layers.
    pub(crate) fn finish(&mut self) {
        self.findings.iter_mut().for_each(|finding| remove_repeated(&mut finding.places));
        self.fine.iter_mut().for_each(|fine| remove_repeated(&mut fine.places));
        let causes: HashSet<FindingId> = self.findings.iter().filter_map(|finding| finding.cause).collect();
        let explains = |finding: &Finding| causes.contains(&finding.id) && finding.cause.is_none();
        self.findings.sort_by_key(|finding| (!explains(finding), finding.code.layer(), finding.cause.is_some()));
    }

    /// Returns the code of the finding that explains this one.
    pub(crate) fn cause_of(&self, finding: &Finding) -> Option<FindingCode> {
        let cause = finding.cause?;
        self.findings.iter().find(|other| other.id == cause).map(|other| other.code)
    }

    /// Returns the codes of the findings that this finding explains.
    pub(crate) fn explained_by(&self, finding: &Finding) -> Vec<&'static str> {
        if finding.cause.is_some() {
            return Vec::new();
        }
        let mut codes: Vec<FindingCode> =
            self.findings.iter().filter(|other| other.cause == Some(finding.id)).map(|other| other.code).collect();
        codes.sort_unstable();
        codes.dedup();
        codes.into_iter().map(FindingCode::slug).collect()
    }
}

/// Adds places. Most repetitions follow each other; [`Report::finish`] removes the others.
fn add(known: &mut Vec<Place>, places: &[Place]) {
    for place in places.iter().filter(|place| **place != Place::default()) {
        if known.last() != Some(place) {
            known.push(place.clone());
        }
    }
}

/// Removes repeated places. A mesh has thousands of clusters.
fn remove_repeated(places: &mut Vec<Place>) {
    let mut seen = HashSet::new();
    places.retain(|place| seen.insert(place.clone()));
}
