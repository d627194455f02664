//! Look-ups in the B+tree of an LMDB file, with every step checked.
//!
//! LMDB's own reader trusts each page it meets: a changed byte in a branch or leaf page is
//! undefined behaviour in C, in practice now and then a SIGSEGV or an `abort`. A dataset
//! outlives disks and copies, so it is written through LMDB but looked up here, in safe code over
//! the mapped bytes: a damaged page is an error message. The layout is LMDB's data version 1 for
//! 64-bit little-endian machines (`mdb.c`: `MDB_meta`, `MDB_db`, `MDB_page`, `MDB_node`); the
//! tests read what LMDB wrote and compare with what LMDB itself returns.

/// Two meta pages stand at the start of the file; the one of the later transaction is in force.
const META_PAGES: u64 = 2;
const META_MAGIC: u32 = 0xBEEF_C0DE;
const META_VERSION: u32 = 1;

/// Page header: page number (8), pad (2), flags (2), then lower and upper bound of the free space
/// (2 + 2), or in an overflow page the number of pages (4).
const PAGE_HEADER: usize = 16;
const FLAGS_AT: usize = 10;
const LOWER_AT: usize = 12;
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const OVERFLOW: u16 = 0x04;
const META: u16 = 0x08;

/// Node header: low and high half of the data size (2 + 2), flags (2), key size (2); then key, then data.
/// In a branch the size and the flags together are the child's page number.
const NODE_HEADER: usize = 8;
/// The data is on overflow pages; the node holds the number of the first one.
const BIG_DATA: u16 = 0x01;

/// LMDB's own limit on the depth of a tree (`CURSOR_STACK`).
const MAX_DEPTH: u16 = 32;
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 512..=32_768;

type Checked<T> = Result<T, String>;

/// What the meta page in force says about the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// Bytes of a page.
    pub(super) page_size: u32,
    /// Number of the last page in use.
    pub(super) last_page: u64,
    /// Values in the unnamed database.
    pub(super) entries: u64,
    root: Option<u64>,
    depth: u16,
}

impl Meta {
    /// Reads the meta pages at the start of an LMDB file and checks that the file holds every page in use.
    ///
    /// # Errors
    /// Says what is wrong; for a file cut short, with both sizes.
    pub(super) fn read(file: &[u8]) -> Checked<Meta> {
        let first = Meta::parse(file, 0)?;
        let second = Meta::parse(file, u64::from(first.1.page_size))?;
        if first.1.page_size != second.1.page_size {
            return Err(format!(
                "the two LMDB meta pages disagree on the page size: {} and {}",
                first.1.page_size, second.1.page_size
            ));
        }
        let (_, meta) = if second.0 > first.0 { second } else { first };
        let needed = meta
            .last_page
            .checked_add(1)
            .and_then(|pages| pages.checked_mul(u64::from(meta.page_size)));
        match needed {
            Some(needed) if needed <= file.len() as u64 => Ok(meta),
            _ => Err(format!(
                "cut short: the file has {} bytes, but its last page in use is number {} of {} bytes each",
                file.len(),
                meta.last_page,
                meta.page_size
            )),
        }
    }

    /// The meta page at byte `at`, and the transaction that wrote it.
    fn parse(file: &[u8], at: u64) -> Checked<(u64, Meta)> {
        let start = at as usize;
        let page = start
            .checked_add(152)
            .and_then(|end| file.get(start..end))
            .ok_or_else(|| {
                format!(
                    "cut short: {} bytes, without room for LMDB's meta pages",
                    file.len()
                )
            })?;
        if u16_at(page, FLAGS_AT)? & META == 0 || u32_at(page, 16)? != META_MAGIC {
            return Err(format!("not an LMDB file: no meta page at byte {at}"));
        }
        let version = u32_at(page, 20)?;
        if version != META_VERSION {
            return Err(format!(
                "LMDB data of version {version}; this build reads version {META_VERSION}"
            ));
        }
        // Two databases are described: the free list (at 40) and the unnamed one (at 88).
        let page_size = u32_at(page, 40)?;
        if !PAGE_SIZES.contains(&page_size) || !page_size.is_power_of_two() {
            return Err(format!(
                "LMDB meta page at byte {at} gives a page size of {page_size} bytes"
            ));
        }
        let root = u64_at(page, 128)?;
        let meta = Meta {
            page_size,
            last_page: u64_at(page, 136)?,
            entries: u64_at(page, 120)?,
            root: (root != u64::MAX).then_some(root),
            depth: u16_at(page, 94)?,
        };
        let flags = u16_at(page, 92)?;
        if flags != 0 || meta.depth > MAX_DEPTH || meta.root.is_some() != (meta.depth > 0) {
            return Err(format!(
                "LMDB meta page at byte {at} describes no plain tree: flags {flags:#x}, depth {}, root {:?}",
                meta.depth, meta.root
            ));
        }
        Ok((u64_at(page, 144)?, meta))
    }
}

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// First byte of the value, from the start of the file.
    pub(super) start: usize,
    /// Bytes of the value.
    pub(super) len: usize,
    /// Whether the value has pages of its own, so that it can be fetched without its neighbours.
    pub(super) own_pages: bool,
}

/// Where the value under `key` lies: [`find`] and [`Entry::place`] in one.
///
/// # Errors
/// As theirs.
pub(super) fn look_up(file: &[u8], meta: &Meta, key: u64) -> Checked<Option<Place>> {
    find(file, meta, key)?
        .map(|entry| entry.place(file, meta))
        .transpose()
}

/// A value whose node was found in its leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// The value follows the node.
    InLeaf(Place),
    /// It has pages of its own, which nobody has looked at yet.
    OwnPages {
        /// Number of the first of them.
        first: u64,
        /// Bytes of the value.
        len: usize,
    },
}

/// Finds the value under `key`, reading one page per level of the tree, but not the value's own pages.
///
/// # Errors
/// Names the page and what about it is impossible. `Ok(None)`: the tree is sound on the way down
/// and does not hold the key.
pub(super) fn find(file: &[u8], meta: &Meta, key: u64) -> Checked<Option<Entry>> {
    let Some(mut number) = meta.root else {
        return Ok(None);
    };
    for _ in 1..meta.depth {
        let page = Page::read(file, meta, number, BRANCH)?;
        number = page.node(page.child_with(key)?)?.child();
    }
    let page = Page::read(file, meta, number, LEAF)?;
    match page.node_of(key)? {
        Some(node) => Entry::of(file, &page, &node).map(Some),
        None => Ok(None),
    }
}

impl Entry {
    /// What a leaf's node says of its value.
    fn of(file: &[u8], page: &Page<'_>, node: &Node<'_>) -> Checked<Entry> {
        let number = page.number;
        let len = node.size as usize;
        match node.flags {
            0 => {
                let start = node.data_at;
                if len > page.end().saturating_sub(start) {
                    return Err(format!(
                        "page {number}: value of {len} bytes runs over the end of the page"
                    ));
                }
                Ok(Entry::InLeaf(Place {
                    start,
                    len,
                    own_pages: false,
                }))
            }
            BIG_DATA => Ok(Entry::OwnPages {
                first: u64_at(file, node.data_at)?,
                len,
            }),
            flags => Err(format!(
                "page {number}: node with flags {flags:#x}; a dataset has plain values only"
            )),
        }
    }

    /// Where the value lies, after a look at the head of its own pages.
    ///
    /// # Errors
    /// Names the page and what about it is impossible.
    pub(super) fn place(self, file: &[u8], meta: &Meta) -> Checked<Place> {
        let (first, len) = match self {
            Entry::InLeaf(place) => return Ok(place),
            Entry::OwnPages { first, len } => (first, len),
        };
        let overflow = Page::at(file, meta, first, OVERFLOW)?;
        let pages = u64::from(u32_at(overflow.bytes, LOWER_AT)?);
        // In range: `Page::at` has checked `first`, and the file holds every page up to the last.
        if pages == 0 || pages > meta.last_page - first + 1 {
            return Err(format!(
                "overflow page {first} claims {pages} pages; the last page is {}",
                meta.last_page
            ));
        }
        if len as u64 > pages * u64::from(meta.page_size) - PAGE_HEADER as u64 {
            return Err(format!(
                "value of {len} bytes on {pages} overflow pages from {first}: too large for them"
            ));
        }
        Ok(Place {
            start: overflow.start + PAGE_HEADER,
            len,
            own_pages: true,
        })
    }

    /// The bytes of the file to read for it, if its leaf says the truth.
    pub(super) fn extent(self, meta: &Meta) -> (usize, usize) {
        match self {
            Entry::InLeaf(place) => (place.start, place.len),
            Entry::OwnPages { first, len } => {
                let start = first.saturating_mul(u64::from(meta.page_size)) as usize;
                (start, len.saturating_add(PAGE_HEADER))
            }
        }
    }
}

/// Goes through all values in the order of their keys, which have to be 0, 1, 2, ..: much faster than one look-up each.
///
/// # Errors
/// Names the first page or key that is not as it has to be; what `visit` returns.
pub(super) fn scan(
    file: &[u8],
    meta: &Meta,
    visit: &mut dyn FnMut(u64, Place) -> Checked<()>,
) -> Checked<()> {
    let mut next = 0;
    if let Some(root) = meta.root {
        scan_below(file, meta, root, meta.depth, &mut next, visit)?;
    }
    match next == meta.entries {
        true => Ok(()),
        false => Err(format!(
            "{next} values in the tree; expected {}",
            meta.entries
        )),
    }
}

/// As deep as the tree at most; keys that do not go on end it, so that pages in a circle do as well.
fn scan_below(
    file: &[u8],
    meta: &Meta,
    number: u64,
    depth: u16,
    next: &mut u64,
    visit: &mut dyn FnMut(u64, Place) -> Checked<()>,
) -> Checked<()> {
    if depth > 1 {
        let page = Page::read(file, meta, number, BRANCH)?;
        for position in 0..page.nodes {
            scan_below(
                file,
                meta,
                page.node(position)?.child(),
                depth - 1,
                next,
                visit,
            )?;
        }
        return Ok(());
    }
    let page = Page::read(file, meta, number, LEAF)?;
    for position in 0..page.nodes {
        let node = page.node(position)?;
        if node.key != next.to_be_bytes() {
            return Err(format!(
                "page {number}: node {position} is not that of sample {next}"
            ));
        }
        visit(*next, Entry::of(file, &page, &node)?.place(file, meta)?)?;
        *next += 1;
    }
    Ok(())
}

/// A page whose number, kind and bounds have been checked.
struct Page<'a> {
    number: u64,
    start: usize,
    bytes: &'a [u8],
    nodes: usize,
}

struct Node<'a> {
    size: u32,
    flags: u16,
    key: &'a [u8],
    /// From the start of the file.
    data_at: usize,
}

impl Node<'_> {
    fn child(&self) -> u64 {
        u64::from(self.flags) << 32 | u64::from(self.size)
    }

    /// Its key, if it is one of 8 bytes.
    fn number(&self) -> Option<u64> {
        self.key.as_array().copied().map(u64::from_be_bytes)
    }
}

impl<'a> Page<'a> {
    /// A page of any kind, without a look at its nodes.
    fn at(file: &'a [u8], meta: &Meta, number: u64, kind: u16) -> Checked<Page<'a>> {
        if number < META_PAGES || number > meta.last_page {
            return Err(format!(
                "page {number} is referred to; data pages are {META_PAGES}..={}",
                meta.last_page
            ));
        }
        let size = meta.page_size as usize;
        let start = number as usize * size;
        let bytes = file
            .get(start..start + size)
            .ok_or_else(|| format!("page {number} lies beyond the file"))?;
        let (found, flags) = (u64_at(bytes, 0)?, u16_at(bytes, FLAGS_AT)?);
        if found != number || flags != kind {
            return Err(format!(
                "page {number} is marked as page {found} with flags {flags:#x}; expected flags {kind:#x}"
            ));
        }
        Ok(Page {
            number,
            start,
            bytes,
            nodes: 0,
        })
    }

    /// A branch or leaf page.
    fn read(file: &'a [u8], meta: &Meta, number: u64, kind: u16) -> Checked<Page<'a>> {
        let mut page = Page::at(file, meta, number, kind)?;
        let lower = usize::from(u16_at(page.bytes, LOWER_AT)?);
        let upper = usize::from(u16_at(page.bytes, LOWER_AT + 2)?);
        if lower < PAGE_HEADER || lower > upper || upper > page.bytes.len() || lower % 2 != 0 {
            return Err(format!(
                "page {number} gives its free space as {lower}..{upper} of {} bytes",
                page.bytes.len()
            ));
        }
        page.nodes = (lower - PAGE_HEADER) / 2;
        if page.nodes == 0 {
            return Err(format!("page {number} is empty"));
        }
        Ok(page)
    }

    fn end(&self) -> usize {
        self.start + self.bytes.len()
    }

    fn node(&self, position: usize) -> Checked<Node<'a>> {
        let damaged = || {
            format!(
                "page {}: node {position} of {} runs over the page",
                self.number, self.nodes
            )
        };
        let at = usize::from(u16_at(self.bytes, PAGE_HEADER + 2 * position)?);
        let node = self.bytes.get(at..).ok_or_else(damaged)?;
        let key_end = NODE_HEADER + usize::from(u16_at(node, 6)?);
        Ok(Node {
            size: u32::from(u16_at(node, 0)?) | u32::from(u16_at(node, 2)?) << 16,
            flags: u16_at(node, 4)?,
            key: node.get(NODE_HEADER..key_end).ok_or_else(damaged)?,
            data_at: self.start + at + key_end,
        })
    }

    /// Position of the child of a branch below which `key` is to be found.
    fn child_with(&self, key: u64) -> Checked<usize> {
        // Leaves written in order hold equally many keys each, all but the last: then the position is known.
        if self.nodes > 3
            && let (Some(second), Some(third)) = (self.node(1)?.number(), self.node(2)?.number())
            && second <= key
            && let Some(children) = (key - second).checked_div(third.saturating_sub(second))
            && children < self.nodes as u64 - 2
        {
            let guess = 1 + children as usize;
            let is_before = |number: Option<u64>| number.is_some_and(|number| number <= key);
            let is_behind = |number: Option<u64>| number.is_some_and(|number| number > key);
            if is_before(self.node(guess)?.number()) && is_behind(self.node(guess + 1)?.number()) {
                return Ok(guess);
            }
        }
        let key = key.to_be_bytes();
        // The first key of a branch is empty and stands for "before everything".
        let position = self.partition_point(1, |node_key| node_key <= &key)?;
        Ok(position - 1)
    }

    /// The node of `key` in a leaf.
    fn node_of(&self, key: u64) -> Checked<Option<Node<'a>>> {
        // Keys written in order are consecutive numbers: then the position is known.
        if let Some(first) = self.node(0)?.number()
            && let Some(guess) = key.checked_sub(first)
            && guess < self.nodes as u64
        {
            let node = self.node(guess as usize)?;
            if node.number() == Some(key) {
                return Ok(Some(node));
            }
        }
        let key = key.to_be_bytes();
        let position = self.partition_point(0, |node_key| node_key < &key)?;
        if position == self.nodes {
            return Ok(None);
        }
        let node = self.node(position)?;
        Ok((node.key == key).then_some(node))
    }

    /// First position in `from..nodes` whose key does not satisfy `before`.
    fn partition_point(&self, from: usize, before: impl Fn(&[u8]) -> bool) -> Checked<usize> {
        let (mut low, mut high) = (from, self.nodes);
        while low < high {
            let middle = low + (high - low) / 2;
            if before(self.node(middle)?.key) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Checked<[u8; N]> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .ok_or_else(|| format!("{N} bytes at {at} are beyond the end of {}", bytes.len()))
}

fn u16_at(bytes: &[u8], at: usize) -> Checked<u16> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Checked<u32> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Checked<u64> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests;
