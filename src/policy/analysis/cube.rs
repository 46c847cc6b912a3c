//! Regions of requests: products of one set of classes for each attribute.

use std::rc::Rc;

use super::NotDecided;
use super::set::Set;

/// A set of requests: those whose class is in the set of every attribute. `None` is every class.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Cube(Box<[Option<Rc<Set>>]>);

/// The number of steps that an answer can take.
#[derive(Debug)]
pub(super) struct Budget {
    steps: u64,
}

impl Budget {
    pub(super) const fn new(steps: u64) -> Self {
        Self { steps }
    }

    /// Takes steps.
    ///
    /// # Errors
    /// Returns [`NotDecided::Budget`] if none are left.
    pub(super) fn spend(&mut self, steps: usize) -> Result<(), NotDecided> {
        let steps = u64::try_from(steps).unwrap_or(u64::MAX);
        self.steps = self.steps.checked_sub(steps).ok_or(NotDecided::Budget)?;
        Ok(())
    }
}

impl Cube {
    /// Returns the region of all requests with this number of attributes.
    pub(super) fn all(attributes: usize) -> Self {
        Self(vec![None; attributes].into())
    }

    /// The classes of an attribute, or `None` for every class.
    pub(super) fn get(&self, attribute: usize) -> Option<&Rc<Set>> {
        self.0[attribute].as_ref()
    }

    /// Returns the region with another set for an attribute.
    pub(super) fn with(&self, attribute: usize, set: Option<Rc<Set>>) -> Self {
        let mut sets = self.0.clone();
        sets[attribute] = set;
        Self(sets)
    }

    /// Returns the part of the region whose classes of an attribute are in a set, or `None` if it is empty.
    pub(super) fn within(&self, attribute: usize, set: &Rc<Set>) -> Option<Self> {
        let both = match self.get(attribute) {
            None => Rc::clone(set),
            Some(own) if Rc::ptr_eq(own, set) => Rc::clone(set),
            Some(own) => Rc::new(own.and(set)),
        };
        (!both.is_empty()).then(|| self.with(attribute, Some(both)))
    }

    pub(super) fn intersects(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|pair| match pair {
            (Some(one), Some(other)) => one.intersects(other),
            _ => true,
        })
    }

    pub(super) fn and(&self, other: &Self) -> Option<Self> {
        let mut both = self.clone();
        for (attribute, set) in other.0.iter().enumerate() {
            if let Some(set) = set {
                both = both.within(attribute, set)?;
            }
        }
        Some(both)
    }

    /// Adds the parts of the region outside another one to `rest`. The parts do not overlap.
    pub(super) fn without(
        &self,
        other: &Self,
        sizes: &[usize],
        rest: &mut Vec<Self>,
        budget: &mut Budget,
    ) -> Result<(), NotDecided> {
        budget.spend(1)?;
        if !self.intersects(other) {
            rest.push(self.clone());
            return Ok(());
        }
        let mut inside = self.clone();
        for (attribute, set) in other.0.iter().enumerate() {
            let Some(set) = set else { continue };
            let outside = match inside.get(attribute) {
                None => Set::full(sizes[attribute]).without(set),
                Some(own) => own.without(set),
            };
            if !outside.is_empty() {
                budget.spend(1)?;
                rest.push(inside.with(attribute, Some(Rc::new(outside))));
            }
            let Some(next) = inside.within(attribute, set) else { return Ok(()) };
            inside = next;
        }
        Ok(())
    }
}

/// Returns the parts of regions that are outside every one of `others`.
pub(super) fn outside<'c>(
    regions: Vec<Cube>,
    others: impl IntoIterator<Item = &'c Cube>,
    sizes: &[usize],
    budget: &mut Budget,
) -> Result<Vec<Cube>, NotDecided> {
    let mut rest = regions;
    for other in others {
        if rest.is_empty() {
            break;
        }
        budget.spend(rest.len())?;
        if !rest.iter().any(|region| region.intersects(other)) {
            continue;
        }
        let mut next = Vec::with_capacity(rest.len());
        for region in &rest {
            region.without(other, sizes, &mut next, budget)?;
        }
        rest = next;
    }
    Ok(rest)
}
