//! Which blocks of the chain are on DA: a height is included once its header was seen there and,
//! if it has transactions, its data.
//!
//! Blocks that came from peers are seen on DA later and in any order; inclusion is recorded in
//! the order of heights. It stops below a fork: what may be taken back is never final.

use std::collections::BTreeMap;

use baton_messages::command::{Command, DaProgress, Lane, Submitted};
use baton_messages::types::{DaHeight, Height};

/// Where the halves of a block are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Places {
    header: Option<DaHeight>,
    data: Option<DaHeight>,
    /// It has no transactions, so there are no data to wait for.
    empty: bool,
}

/// Blocks in the chain that were seen on DA and are not recorded as included.
#[derive(Debug)]
pub struct Inclusion {
    most: usize,
    seen: BTreeMap<Height, Places>,
    /// The lowest place on DA of what had no room.
    refused: Option<DaHeight>,
}

impl Inclusion {
    /// Remembers at most so many heights.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self { most, seen: BTreeMap::new(), refused: None }
    }

    /// Half of a block was seen. `false`: there is no room to remember it, and [`Self::reread`] says so when there is.
    pub fn saw(&mut self, lane: Lane, height: Height, at: DaHeight, empty: bool) -> bool {
        if self.seen.len() >= self.most && !self.seen.contains_key(&height) {
            self.refused = Some(self.refused.map_or(at, |refused| refused.min(at)));
            return false;
        }
        let places = self.seen.entry(height).or_default();
        places.empty |= empty;
        let place = match lane {
            Lane::Header => &mut places.header,
            Lane::Data => &mut places.data,
        };
        // The first place counts: a copy further on changes nothing.
        *place = Some(place.map_or(at, |known| known.min(at)));
        true
    }

    /// What can be recorded now, in order, at most up to a height.
    pub fn take(&mut self, progress: &DaProgress, up_to: Height) -> Vec<Command> {
        let mut commands = vec![];
        let (mut headers, mut data, mut included) = (progress.headers, progress.data, progress.included);
        self.seen = self.seen.split_off(&included.next());
        while let Some((height, places)) = self.seen.first_key_value() {
            let height = *height;
            let Some(header) = places.header else { break };
            let Some(of_data) = places.data.or_else(|| places.empty.then_some(header)) else { break };
            if height != included.next() || height > up_to {
                break;
            }
            self.seen.pop_first();
            for (lane, done, da_height) in
                [(Lane::Header, &mut headers, header), (Lane::Data, &mut data, of_data)]
            {
                if height > *done {
                    let range = Submitted { lane, from: done.next(), to: height, da_height };
                    commands.push(Command::Submitted(range));
                    *done = height;
                }
            }
            included = height;
        }
        if included > progress.included {
            commands.push(Command::Included(included));
        }
        commands
    }

    /// Where on DA a block is whole; `None` while half of it was not seen.
    #[must_use]
    pub fn place(&self, height: Height) -> Option<DaHeight> {
        let places = self.seen.get(&height)?;
        let header = places.header?;
        places.data.or_else(|| places.empty.then_some(header)).map(|data| data.max(header))
    }

    /// The lowest place on DA of which something is not recorded.
    #[must_use]
    pub fn lowest_da(&self) -> Option<DaHeight> {
        // Heights are on DA in about their order: the first few are the lowest.
        let places = |places: &Places| places.header.into_iter().chain(places.data);
        self.seen.values().take(LOOKED_AT).flat_map(places).chain(self.refused).min()
    }

    /// Where on DA to read again, once there is room for half of what can be remembered.
    pub fn reread(&mut self) -> Option<DaHeight> {
        self.refused.take_if(|_| self.seen.len() <= self.most / 2)
    }
}

/// How many heights are looked at for the lowest place. Further up they would have to be further
/// down on DA than all of these; then a few copies are read again after a restart, no more.
const LOOKED_AT: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(included: u64) -> DaProgress {
        let height = Height(included);
        DaProgress { headers: height, data: height, included: height, da_height: DaHeight(0) }
    }

    fn range(lane: Lane, height: u64, da_height: u64) -> Command {
        let height = Height(height);
        Command::Submitted(Submitted { lane, from: height, to: height, da_height: DaHeight(da_height) })
    }

    #[test]
    fn a_block_is_included_when_both_halves_were_seen_in_any_order() {
        let mut inclusion = Inclusion::new(10);
        assert!(inclusion.saw(Lane::Data, Height(1), DaHeight(7), false));
        assert_eq!(inclusion.take(&at(0), Height(9)), []);
        assert_eq!(inclusion.lowest_da(), Some(DaHeight(7)));
        assert!(inclusion.saw(Lane::Header, Height(1), DaHeight(9), false));
        let expected = [range(Lane::Header, 1, 9), range(Lane::Data, 1, 7), Command::Included(Height(1))];
        assert_eq!(inclusion.take(&at(0), Height(9)), expected);
        assert_eq!(inclusion.lowest_da(), None);
    }

    #[test]
    fn a_block_without_transactions_needs_its_header_only() {
        let mut inclusion = Inclusion::new(10);
        inclusion.saw(Lane::Header, Height(1), DaHeight(3), true);
        let expected = [range(Lane::Header, 1, 3), range(Lane::Data, 1, 3), Command::Included(Height(1))];
        assert_eq!(inclusion.take(&at(0), Height(9)), expected);
    }

    #[test]
    fn inclusion_has_no_gaps_and_stops_below_a_fork() {
        let mut inclusion = Inclusion::new(10);
        for height in [2, 3, 4] {
            inclusion.saw(Lane::Header, Height(height), DaHeight(height), true);
        }
        assert_eq!(inclusion.take(&at(0), Height(9)), [], "the first is missing");
        inclusion.saw(Lane::Header, Height(1), DaHeight(9), true);
        let taken = inclusion.take(&at(0), Height(3));
        assert_eq!(taken.last(), Some(&Command::Included(Height(3))), "four may not be final");
        assert_eq!(inclusion.take(&at(3), Height(9)).last(), Some(&Command::Included(Height(4))));
    }

    #[test]
    fn what_is_included_already_is_forgotten_and_memory_is_bounded() {
        let mut inclusion = Inclusion::new(2);
        assert!(inclusion.saw(Lane::Header, Height(5), DaHeight(1), true));
        assert!(inclusion.saw(Lane::Header, Height(6), DaHeight(1), true));
        assert!(!inclusion.saw(Lane::Header, Height(7), DaHeight(1), true), "there is no room");
        assert!(inclusion.saw(Lane::Data, Height(6), DaHeight(1), false), "a known height has room");
        assert_eq!(inclusion.take(&at(6), Height(9)), []);
        assert!(inclusion.saw(Lane::Header, Height(7), DaHeight(1), true));
    }

    #[test]
    fn what_had_no_room_is_read_again_once_there_is_some_and_the_place_is_held_until_then() {
        let mut inclusion = Inclusion::new(2);
        for (height, da) in [(5, 5), (6, 6), (8, 8), (7, 7)] {
            inclusion.saw(Lane::Header, Height(height), DaHeight(da), true);
        }
        assert_eq!((inclusion.lowest_da(), inclusion.reread()), (Some(DaHeight(5)), None));
        assert_eq!(inclusion.take(&at(6), Height(9)), []);
        assert_eq!(inclusion.lowest_da(), Some(DaHeight(7)));
        assert_eq!((inclusion.reread(), inclusion.reread()), (Some(DaHeight(7)), None));
    }

    #[test]
    fn the_first_place_of_a_copy_counts() {
        let mut inclusion = Inclusion::new(2);
        inclusion.saw(Lane::Header, Height(1), DaHeight(5), true);
        inclusion.saw(Lane::Header, Height(1), DaHeight(8), true);
        assert_eq!(inclusion.take(&at(0), Height(1))[0], range(Lane::Header, 1, 5));
    }
}
