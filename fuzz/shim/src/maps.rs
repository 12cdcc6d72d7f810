//! Maps as tables. Only one thread uses them, as only one program runs on a CPU.

use std::borrow::Borrow;
use std::cell::UnsafeCell;
use std::collections::BTreeMap;

pub use lpm_trie::LpmTrie;

/// A cell of a static that one thread uses.
struct Cell<T>(UnsafeCell<T>);

// SAFETY: a fuzz target has one thread; the maps say so.
unsafe impl<T> Sync for Cell<T> {}

impl<T> Cell<T> {
    const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Entries are boxed, so that an entry stays where it is while others come. One that is removed may not be in use,
    /// which holds here: tables change between packets.
    #[expect(clippy::mut_from_ref, reason = "a map is changed through shared references")]
    fn table(&self) -> &mut T {
        // SAFETY: one thread, and no reference to the table itself outlives a method of its map.
        unsafe { &mut *self.0.get() }
    }
}

/// A plain value as the bytes that the kernel compares.
fn bytes_of<K: Copy>(key: &K) -> Vec<u8> {
    // SAFETY: keys are plain data without padding, as their layouts assert.
    unsafe { std::slice::from_raw_parts((&raw const *key).cast::<u8>(), size_of::<K>()) }.to_vec()
}

type Table<V> = BTreeMap<Vec<u8>, Box<V>>;

pub struct HashMap<K, V> {
    table: Cell<Table<V>>,
    capacity: u32,
    _key: std::marker::PhantomData<fn(K)>,
}

impl<K: Copy, V> HashMap<K, V> {
    pub const fn with_max_entries(capacity: u32, _flags: u32) -> Self {
        Self {
            table: Cell::new(BTreeMap::new()),
            capacity,
            _key: std::marker::PhantomData,
        }
    }

    /// # Safety
    ///
    /// As in the kernel: the entry may not be removed while it is looked at.
    pub unsafe fn get(&self, key: impl Borrow<K>) -> Option<&V> {
        self.table
            .table()
            .get(&bytes_of(key.borrow()))
            .map(|value| &**value)
    }

    pub fn insert(&self, key: K, value: V) {
        let table = self.table.table();
        assert!(table.len() < self.capacity as usize, "a map is full");
        table.insert(bytes_of(&key), Box::new(value));
    }

    pub fn clear(&self) {
        self.table.table().clear();
    }
}

/// As the kernel has it, all zero from the start.
pub struct Array<T> {
    table: Cell<BTreeMap<u32, Box<T>>>,
    capacity: u32,
}

impl<T: Copy> Array<T> {
    pub const fn with_max_entries(capacity: u32, _flags: u32) -> Self {
        Self {
            table: Cell::new(BTreeMap::new()),
            capacity,
        }
    }

    pub fn get(&self, index: u32) -> Option<&T> {
        self.get_ptr_mut(index).map(|entry| {
            // SAFETY: the entry is boxed and stays.
            unsafe { &*entry }
        })
    }

    pub fn get_ptr_mut(&self, index: u32) -> Option<*mut T> {
        if index >= self.capacity {
            return None;
        }
        // SAFETY: what is in an array is plain data, of which all zero is a value.
        let zero = || Box::new(unsafe { std::mem::zeroed() });
        let entry = self.table.table().entry(index).or_insert_with(zero);
        Some(&raw mut **entry)
    }

    pub fn set(&self, index: u32, value: T) {
        let entry = self.get_ptr_mut(index).expect("the index is below the capacity");
        // SAFETY: nothing else refers to the entry while tables change.
        unsafe { *entry = value };
    }

    /// All zero again.
    pub fn clear(&self) {
        self.table.table().clear();
    }
}

/// There is one CPU.
pub struct PerCpuArray<T> {
    entries: Cell<Option<Box<T>>>,
}

impl<T> PerCpuArray<T> {
    /// # Panics
    ///
    /// There is more than one entry.
    pub const fn with_max_entries(capacity: u32, _flags: u32) -> Self {
        assert!(capacity == 1);
        Self {
            entries: Cell::new(None),
        }
    }

    pub fn get_ptr_mut(&self, index: u32) -> Option<*mut T> {
        // SAFETY: as in `Array`.
        let zero = || Box::new(unsafe { std::mem::zeroed() });
        let entry = self.entries.table().get_or_insert_with(zero);
        (index == 0).then_some(&raw mut **entry)
    }

    pub fn get_ptr(&self, index: u32) -> Option<*const T> {
        self.get_ptr_mut(index).map(<*mut T>::cast_const)
    }
}

pub mod lpm_trie {
    use std::borrow::Borrow;

    use super::{Cell, bytes_of};

    /// A prefix of so many bits.
    #[derive(Clone, Copy, Debug)]
    pub struct Key<K> {
        prefix_len: u32,
        data: K,
    }

    impl<K> Key<K> {
        pub const fn new(prefix_len: u32, data: K) -> Self {
            Self { prefix_len, data }
        }
    }

    /// The longest entry around a key is found by looking at all of them.
    pub struct LpmTrie<K, V> {
        entries: Cell<Vec<(Key<K>, Box<V>)>>,
        capacity: u32,
    }

    impl<K: Copy, V> LpmTrie<K, V> {
        pub const fn with_max_entries(capacity: u32, _flags: u32) -> Self {
            Self {
                entries: Cell::new(Vec::new()),
                capacity,
            }
        }

        pub fn get(&self, key: impl Borrow<Key<K>>) -> Option<&V> {
            let key = key.borrow();
            let around = self.entries.table().iter().filter(|(entry, _)| {
                entry.prefix_len <= key.prefix_len && is_equal(&entry.data, &key.data, entry.prefix_len)
            });
            let longest = around.max_by_key(|(entry, _)| entry.prefix_len);
            longest.map(|(_, value)| &**value)
        }

        pub fn insert(&self, key: Key<K>, value: V) {
            let entries = self.entries.table();
            assert!(entries.len() < self.capacity as usize, "a map is full");
            entries.retain(|(entry, _)| {
                entry.prefix_len != key.prefix_len || !is_equal(&entry.data, &key.data, key.prefix_len)
            });
            entries.push((key, Box::new(value)));
        }

        pub fn clear(&self) {
            self.entries.table().clear();
        }
    }

    /// In their first bits, from the first byte on.
    fn is_equal<K: Copy>(a: &K, b: &K, bits: u32) -> bool {
        let (a, b) = (bytes_of(a), bytes_of(b));
        let (whole, rest) = (bits as usize / 8, bits % 8);
        let mask = !(0xff_u8.checked_shr(rest).unwrap_or(0));
        a[..whole] == b[..whole] && (rest == 0 || (a[whole] ^ b[whole]) & mask == 0)
    }
}
