//! The field `outputs`: how decisions and callers are shown, and what is counted.

use super::pointer::Pointer;
use super::reader::Reader;
use crate::outputs::{CallerSpan, CounterDetail, DecisionForm, OutputSettings};
use crate::policy::node::Node;

const DECISION: &str = "decision";
const CALLER: &str = "caller";
const COUNTERS: &str = "counters";

pub(super) fn read_outputs(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<OutputSettings> {
    let fields = r.object(node, at, &[DECISION, CALLER, COUNTERS])?;
    let decision = fields.optional(r, DECISION, |r, node, at| {
        r.one_of(node, at, &DecisionForm::all().map(|form| (form.slug(), form)).collect::<Vec<_>>())
    });
    let caller = fields.optional(r, CALLER, |r, node, at| {
        r.one_of(node, at, &CallerSpan::all().map(|span| (span.slug(), span)).collect::<Vec<_>>())
    });
    let counters = fields.optional(r, COUNTERS, |r, node, at| {
        r.one_of(node, at, &CounterDetail::all().map(|detail| (detail.slug(), detail)).collect::<Vec<_>>())
    });
    Some(OutputSettings {
        decision: decision.unwrap_or_default(),
        caller: caller.unwrap_or_default(),
        counters: counters.unwrap_or_default(),
    })
}
