//! Scores in several lists: which are the lowest of all.

use std::cmp::Ordering;

/// Which places stay when the `drop` lowest of all lists go; of equal ones the earlier goes.
pub(super) fn stay(lists: &[Vec<f64>], drop: usize) -> Vec<Vec<bool>> {
    let mut all: Vec<f64> = lists.iter().flatten().copied().collect();
    let drop = drop.min(all.len());
    if drop == 0 {
        return lists.iter().map(|list| vec![true; list.len()]).collect();
    }
    let (below, &mut highest, _) = all.select_nth_unstable_by(drop - 1, f64::total_cmp);
    // Some of the equal ones may go and others stay.
    let mut equal = drop - below.iter().filter(|score| score.total_cmp(&highest).is_lt()).count();
    let mut stays = |score: &f64| match score.total_cmp(&highest) {
        Ordering::Less => false,
        Ordering::Greater => true,
        Ordering::Equal => {
            let goes = equal > 0;
            equal -= usize::from(goes);
            !goes
        }
    };
    lists.iter().map(|list| list.iter().map(&mut stays).collect()).collect()
}

/// Puts the numbers of a list in these places; `None` if they are not as many.
pub(super) fn fill<'s>(places: impl Iterator<Item = &'s mut f64>, list: &[f64]) -> Option<()> {
    let places: Vec<&mut f64> = places.collect();
    if places.len() != list.len() {
        return None;
    }
    places.into_iter().zip(list).for_each(|(place, score)| *place = *score);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_so_many_go_even_among_equals() {
        let scores = [vec![1.0, 3.0, 1.0], vec![], vec![1.0, f64::NEG_INFINITY]];
        assert_eq!(stay(&scores, 0), [vec![true; 3], vec![], vec![true; 2]]);
        assert_eq!(stay(&scores, 1), [vec![true; 3], vec![], vec![true, false]]);
        assert_eq!(stay(&scores, 3), [vec![false, true, false], vec![], vec![true, false]]);
        assert_eq!(stay(&scores, 5), [vec![false; 3], vec![], vec![false; 2]]);
        assert_eq!(stay(&scores, 9), stay(&scores, 5));
    }
}
