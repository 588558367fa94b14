//! Things with small numbers for names, which stand in the tokens of the poll. PURE.

/// Things by number; numbers of removed ones are used again.
#[derive(Debug)]
pub struct Slab<T> {
    things: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { things: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Puts one in; returns its number.
    pub fn insert(&mut self, thing: T) -> usize {
        if let Some(at) = self.free.pop() {
            self.things[at] = Some(thing);
            return at;
        }
        self.things.push(Some(thing));
        self.things.len() - 1
    }

    /// The one with this number.
    pub fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.things.get_mut(at)?.as_mut()
    }

    /// Takes the one with this number out.
    pub fn remove(&mut self, at: usize) -> Option<T> {
        let thing = self.things.get_mut(at)?.take()?;
        self.free.push(at);
        Some(thing)
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.things.len() - self.free.len()
    }

    /// Every one with its number.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.things.iter().enumerate().filter_map(|(at, thing)| Some((at, thing.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again() {
        let mut slab = Slab::default();
        let [a, b] = ["a", "b"].map(|thing| slab.insert(thing));
        assert_eq!((slab.remove(a), slab.remove(a)), (Some("a"), None));
        assert_eq!(slab.insert("c"), a);
        assert_eq!(slab.iter().collect::<Vec<_>>(), [(a, &"c"), (b, &"b")]);
        assert_eq!((slab.len(), slab.get_mut(7)), (2, None));
    }
}
