//! The addresses that stand for names in one session.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

/// The first address of 198.18.0.0/15, a network that is nobody's.
const FIRST: u32 = 0xc612_0000;
/// So many names are known at a time; then the oldest makes room. At most 131071.
const MOST: usize = 32_768;

/// Names and their addresses.
#[derive(Default)]
pub struct Names(Mutex<Table>);

#[derive(Default)]
struct Table {
    places: HashMap<Arc<str>, usize>,
    names: Vec<Arc<str>>,
    /// The place that the next name takes over when all are taken.
    oldest: usize,
}

impl Names {
    /// The address that means this name from now on.
    pub fn address(&self, name: &str) -> Ipv4Addr {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match table.places.get(name) {
            Some(place) => *place,
            None => table.add(name.into()),
        };
        // Place 0 has the network's second address.
        Ipv4Addr::from_bits(FIRST + 1 + u32::try_from(place).unwrap_or_default())
    }

    /// The name that an address means.
    pub fn name(&self, address: Ipv4Addr) -> Option<Arc<str>> {
        let place = address.to_bits().checked_sub(FIRST + 1)?;
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.names.get(usize::try_from(place).ok()?).cloned()
    }
}

impl Table {
    fn add(&mut self, name: Arc<str>) -> usize {
        if self.names.len() < MOST {
            self.names.push(name.clone());
            self.places.insert(name, self.names.len() - 1);
            return self.names.len() - 1;
        }
        let place = self.oldest;
        self.oldest = (place + 1) % MOST;
        if let Some(slot) = self.names.get_mut(place) {
            let gone = std::mem::replace(slot, name.clone());
            self.places.remove(&gone);
        }
        self.places.insert(name, place);
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_an_address_of_its_own_and_keeps_it() {
        let names = Names::default();
        let (a, b) = (names.address("a.example.com"), names.address("b.example.com"));
        assert_eq!((a, b), (Ipv4Addr::new(198, 18, 0, 1), Ipv4Addr::new(198, 18, 0, 2)));
        assert_eq!(names.address("a.example.com"), a);
        assert_eq!(names.name(b).as_deref(), Some("b.example.com"));
        for other in ["198.18.0.0", "198.18.0.3", "198.20.0.1", "127.0.0.1", "0.0.0.0", "255.255.255.255"] {
            assert_eq!(names.name(other.parse().expect("an address")), None, "{other}");
        }
    }

    #[test]
    fn the_oldest_makes_room() {
        let names = Names::default();
        for number in 0..MOST {
            names.address(&format!("n{number}"));
        }
        let taken = names.address("late");
        assert_eq!(names.name(taken).as_deref(), Some("late"));
        assert_eq!(taken, Ipv4Addr::new(198, 18, 0, 1));
        assert_eq!(names.address("n1"), Ipv4Addr::new(198, 18, 0, 2));
        assert_ne!(names.address("n0"), taken);
        assert!(names.0.lock().expect("a table").places.len() <= MOST);
    }
}
