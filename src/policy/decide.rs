//! Decisions: a subject and a request, against the rules of a policy set.

use super::index::Index;
use super::rule::RuleId;
use super::rule::Untraced;
use super::{PolicySet, PolicySetId};
use crate::decision::{Decision, DenyReason, Outcome, Verdict};
use crate::host::{HostFailure, RequestAttributes};
use crate::identity::{Identity, Peer};
use crate::request::Request;

/// An identity, with the rules of one policy set that can match it.
///
/// Only [`PolicySet::subject`] makes a subject. It is specific to its policy set: every other one denies it.
#[derive(Debug)]
pub struct Subject {
    policy_set: PolicySetId,
    identity: Identity,
    candidates: Candidates,
}

/// The positions, in the index, of the rules that can match a peer.
#[derive(Debug)]
pub(super) struct Candidates {
    deny: Box<[usize]>,
    allow: Box<[usize]>,
    audit: Box<[usize]>,
    shadow_deny: Box<[usize]>,
    shadow_allow: Box<[usize]>,
}

impl Subject {
    /// The identity.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The workload, if the subject has an accepted SPIFFE ID.
    #[must_use]
    pub const fn peer(&self) -> Option<&Peer> {
        self.identity.peer()
    }
}

impl PolicySet {
    /// Finds the rules that can match this identity.
    #[must_use]
    pub fn subject(&self, identity: Identity) -> Subject {
        let peer = identity.peer();
        let stages = &self.stages;
        let candidates = Candidates {
            deny: stages.deny.candidates(peer),
            allow: stages.allow.candidates(peer),
            audit: stages.audit.candidates(peer),
            shadow_deny: stages.shadow_deny.candidates(peer),
            shadow_allow: stages.shadow_allow.candidates(peer),
        };
        Subject { policy_set: self.id, identity, candidates }
    }

    /// Decides a request of this subject. Denies the subject of another policy set.
    #[must_use]
    pub fn decide<A: RequestAttributes>(&self, subject: &Subject, request: &Request<A>) -> Outcome<'_> {
        let Subject { policy_set, identity, candidates } = subject;
        if *policy_set != self.id {
            return Outcome::denied(DenyReason::FilterFailed);
        }
        if self.is_delegated {
            return Outcome::denied(DenyReason::DelegateMissing);
        }
        match identity {
            Identity::Peer(peer) => self.evaluate(Some(peer), candidates, request),
            Identity::Anonymous => self.evaluate(None, candidates, request),
            Identity::Rejected(reason) => Outcome::denied(DenyReason::Identity(*reason)),
        }
    }

    fn evaluate<A: RequestAttributes>(
        &self,
        peer: Option<&Peer>,
        candidates: &Candidates,
        request: &Request<A>,
    ) -> Outcome<'_> {
        let mut matches = |id: RuleId| match self.rule(id) {
            Some(rule) if self.applies(rule, request.now()) => rule.matches(peer, request, &mut Untraced),
            _ => Ok(false),
        };
        let stages = &self.stages;
        let mut first = |index: &Index, candidates: &[usize]| index.first_match(candidates, &mut matches, request);
        let deny = first(&stages.deny, &candidates.deny);
        let allow = match deny {
            Ok(None) => first(&stages.allow, &candidates.allow),
            _ => Ok(None),
        };
        let shadow = stages.has_shadow.then(|| {
            let deny = earlier(deny, first(&stages.shadow_deny, &candidates.shadow_deny));
            let allow = match deny {
                Ok(None) => earlier(allow, first(&stages.shadow_allow, &candidates.shadow_allow)),
                _ => Ok(None),
            };
            self.conclude(deny, allow, stages.has_allow || stages.has_shadow_allow)
        });
        // AUDIT does not affect the verdict, so an attribute that cannot be read is not an error.
        let audit = first(&stages.audit, &candidates.audit).unwrap_or(None);
        Outcome {
            decision: self.conclude(deny, allow, stages.has_allow),
            shadow,
            audit: audit.and_then(|id| self.rule_name(id)),
        }
    }

    /// Applies the order of Istio: a DENY rule that matches, no ALLOW policy, an ALLOW rule that matches, and otherwise a denial.
    pub(super) fn conclude(&self, deny: Match, allow: Match, has_allow: bool) -> Decision<'_> {
        let verdict = match (deny, allow) {
            (Err(HostFailure), _) | (_, Err(HostFailure)) => Verdict::Deny(DenyReason::RequestUnreadable),
            (Ok(Some(_)), _) => Verdict::Deny(DenyReason::DeniedByPolicy),
            (Ok(None), Ok(None)) if has_allow => Verdict::Deny(DenyReason::NoPolicyAllows),
            (Ok(None), Ok(_)) => Verdict::Allow,
        };
        let rule = deny.ok().flatten().or(allow.ok().flatten());
        Decision { verdict, rule: rule.and_then(|id| self.rule_name(id)) }
    }
}

/// The first rule that matches, or [`HostFailure`] if none matches and an attribute could not be read.
pub(super) type Match = Result<Option<RuleId>, HostFailure>;

fn earlier(one: Match, other: Match) -> Match {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok(one.into_iter().chain(other).min()),
        (Ok(Some(found)), Err(_)) | (Err(_), Ok(Some(found))) => Ok(Some(found)),
        (Err(failure), _) | (_, Err(failure)) => Err(failure),
    }
}
