//! The fewest and largest regions with the same requests.

use std::rc::Rc;

use rustc_hash::FxHashMap;

use super::NotDecided;
use super::cube::{Budget, Cube, outside};
use super::set::Set;

/// The number of regions up to which each one is compared with the others. More are not minimal.
pub(super) const MAX_COMPARED: usize = 40;

/// Returns regions with the same requests as these, which can overlap.
pub(super) fn minimal(cubes: Vec<Cube>, sizes: &[usize], budget: &mut Budget) -> Result<Vec<Cube>, NotDecided> {
    let cubes = merged(cubes, sizes);
    if cubes.len() > MAX_COMPARED {
        return Ok(cubes);
    }
    let mut larger = Vec::with_capacity(cubes.len());
    for cube in &cubes {
        larger.push(enlarged(cube, &cubes, sizes, budget)?);
    }
    let mut kept = merged(larger, sizes);
    let mut position = 0;
    while position < kept.len() {
        let others: Vec<&Cube> =
            kept.iter().enumerate().filter(|(other, _)| *other != position).map(|(_, cube)| cube).collect();
        if outside(vec![kept[position].clone()], others, sizes, budget)?.is_empty() {
            kept.remove(position);
        } else {
            position += 1;
        }
    }
    Ok(kept)
}

/// Joins regions that differ in one attribute only.
fn merged(mut cubes: Vec<Cube>, sizes: &[usize]) -> Vec<Cube> {
    loop {
        let before = cubes.len();
        for (attribute, size) in sizes.iter().enumerate() {
            let mut joined: Vec<(Cube, Option<Set>)> = Vec::new();
            let mut positions: FxHashMap<Cube, usize> = FxHashMap::default();
            for cube in &cubes {
                let set = cube.get(attribute).map(|set| (**set).clone());
                let rest = cube.with(attribute, None);
                match positions.get(&rest) {
                    Some(position) => {
                        let (_, found) = &mut joined[*position];
                        *found = found.take().zip(set).map(|(one, other)| one.or(&other));
                    }
                    None => {
                        positions.insert(rest.clone(), joined.len());
                        joined.push((rest, set));
                    }
                }
            }
            let whole = |set: &Set| set.count() == *size;
            cubes = joined
                .into_iter()
                .map(|(rest, set)| rest.with(attribute, set.filter(|set| !whole(set)).map(Rc::new)))
                .collect();
        }
        if cubes.len() == before {
            return cubes;
        }
    }
}

/// Returns the region with as many classes of each attribute as the regions allow.
fn enlarged(cube: &Cube, all: &[Cube], sizes: &[usize], budget: &mut Budget) -> Result<Cube, NotDecided> {
    let mut cube = cube.clone();
    for (attribute, size) in sizes.iter().enumerate() {
        if cube.get(attribute).is_none() {
            continue;
        }
        let whole = cube.with(attribute, None);
        let missing = outside(vec![whole.clone()], all, sizes, budget)?;
        if missing.is_empty() {
            cube = whole;
            continue;
        }
        // A class cannot be added if it has a request that no region has. Those of the region itself have none.
        let lacking = missing.iter().filter_map(|region| region.get(attribute));
        let largest = lacking.fold(Set::full(*size), |largest, classes| largest.without(classes));
        cube = cube.with(attribute, Some(Rc::new(largest)));
    }
    Ok(cube)
}
