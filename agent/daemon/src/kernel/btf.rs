//! Where the kernel that runs keeps the members of its structures, from its own description of its types (BTF).
//!
//! The eBPF programs can't be relocated when they are loaded, as C programs are, so that they are given offsets as globals.

mod tracepoints;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

pub use self::tracepoints::MissingTracepoints;

const KERNEL: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
/// Bytes of a type's common part, of a member, of a value of an enumeration, and of one of 64 bits.
const TYPE: usize = 12;
const MEMBER: usize = 12;
const ENUMERATOR: usize = 8;
const ENUMERATOR64: usize = 12;
/// Anonymous members inside each other, and aliases of aliases, that are followed; real ones go four or five deep.
const DEPTH: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    #[error("cannot read {KERNEL}: {0}; the kernel needs CONFIG_DEBUG_INFO_BTF")]
    Read(#[from] io::Error),
    #[error("the kernel's type information is malformed: {0}")]
    Malformed(&'static str),
    #[error("this kernel has no {kind} `{name}`")]
    NoType { kind: &'static str, name: String },
    #[error("this kernel's `{structure}` has no member `{path}`")]
    NoMember { structure: String, path: String },
    #[error(transparent)]
    NoTracepoints(#[from] MissingTracepoints),
}

/// A type's kind, as the format numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Structure,
    Enumeration,
    Enumeration64,
    /// Another name for a type, or the same type qualified.
    Alias,
    Other,
}

#[derive(Clone, Copy, Debug)]
struct Type {
    kind: Kind,
    name: u32,
    /// Members of a structure, or values of an enumeration.
    count: usize,
    /// A structure's members have the width of a bit field in their offsets; an enumeration's values have a sign.
    flag: bool,
    /// A size in bytes or another type's number, by kind.
    size_or_type: u32,
    /// Where the kind's own part begins in the data.
    body: usize,
}

/// The types of the kernel; some megabytes, to be dropped when everything has been asked.
pub struct Btf {
    data: Vec<u8>,
    /// Where strings begin in the data.
    strings: usize,
    /// By number; the first one is void.
    types: Vec<Type>,
    /// Structures, unions and enumerations that have a name.
    named: HashMap<String, u32>,
}

impl Btf {
    /// Reads the description of the kernel that runs: some ten milliseconds.
    ///
    /// # Errors
    ///
    /// When the kernel has none, or it can't be understood.
    pub fn kernel() -> Result<Self, BtfError> {
        Self::parse(fs::read(Path::new(KERNEL))?)
    }

    /// The offset in bytes of a member of a structure or union, by a dotted path through what is embedded in it; anonymous
    /// structures and unions on the way needn't be named.
    ///
    /// # Errors
    ///
    /// When there is no such structure, or no such member, or it is a bit field.
    pub fn offset(&self, structure: &str, path: &str) -> Result<u32, BtfError> {
        let none = || BtfError::NoMember {
            structure: structure.to_owned(),
            path: path.to_owned(),
        };
        let mut within = self.structure(structure)?;
        let mut offset = 0;
        for name in path.split('.') {
            let (bits, member) = self.member(within, name, 0).ok_or_else(none)?;
            offset += bits;
            within = self.resolved(member);
        }
        if offset % u8::BITS == 0 {
            Ok(offset / u8::BITS)
        } else {
            Err(none())
        }
    }

    /// The size of a structure or union in bytes.
    ///
    /// # Errors
    ///
    /// When there is no such structure.
    pub fn size(&self, structure: &str) -> Result<u32, BtfError> {
        Ok(self.structure(structure)?.size_or_type)
    }

    /// Names and values of an enumeration, in their order.
    ///
    /// # Errors
    ///
    /// When there is no such enumeration.
    pub fn enumerators(&self, enumeration: &str) -> Result<Vec<(String, i64)>, BtfError> {
        let found = self.named(enumeration, "enumeration", |kind| {
            matches!(kind, Kind::Enumeration | Kind::Enumeration64)
        })?;
        let width = if found.kind == Kind::Enumeration {
            ENUMERATOR
        } else {
            ENUMERATOR64
        };
        (0..found.count)
            .map(|index| {
                let at = found.body + index * width;
                let low = self.word(at + 4)?;
                let value = match found.kind {
                    Kind::Enumeration64 => {
                        (u64::from(self.word(at + 8)?) << 32 | u64::from(low)).cast_signed()
                    }
                    _ if found.flag => i64::from(low.cast_signed()),
                    _ => i64::from(low),
                };
                Some((self.string(self.word(at)?)?.to_owned(), value))
            })
            .collect::<Option<_>>()
            .ok_or(BtfError::Malformed("an enumeration goes beyond its end"))
    }

    fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        let short = BtfError::Malformed("it is too short");
        let Some(header) = Header::read(&data) else {
            return Err(short);
        };
        if header.magic != MAGIC {
            return Err(BtfError::Malformed("it begins with another number"));
        }
        let (types, strings) = header.sections(data.len()).ok_or(short)?;
        let mut btf = Self {
            data,
            strings,
            types: vec![Type::VOID],
            named: HashMap::new(),
        };
        let mut at = types.start;
        while at < types.end {
            let (next, length) = btf
                .read_type(at)
                .ok_or(BtfError::Malformed("a type of an unknown kind"))?;
            at += TYPE + length;
            if next.kind.has_name()
                && let Some(name) = btf.string(next.name).filter(|name| !name.is_empty())
            {
                // A declaration without a body has a kind of its own; of two definitions the first is the kernel's own.
                let number = btf.types.len() as u32;
                let name = name.to_owned();
                btf.named.entry(name).or_insert(number);
            }
            btf.types.push(next);
        }
        Ok(btf)
    }

    /// The type at this place, and the length of its own part.
    fn read_type(&self, at: usize) -> Option<(Type, usize)> {
        let info = self.word(at + 4)?;
        let count = (info & 0xffff) as usize;
        let (kind, length) = match info >> 24 & 0x1f {
            1 | 14 | 17 => (Kind::Other, 4),
            2 | 7 | 12 | 16 => (Kind::Other, 0),
            3 => (Kind::Other, 12),
            4 | 5 => (Kind::Structure, count * MEMBER),
            6 => (Kind::Enumeration, count * ENUMERATOR),
            8..=11 | 18 => (Kind::Alias, 0),
            13 => (Kind::Other, count * 8),
            15 => (Kind::Other, count * 12),
            19 => (Kind::Enumeration64, count * ENUMERATOR64),
            _ => return None,
        };
        let read = Type {
            kind,
            name: self.word(at)?,
            count,
            flag: info >> 31 != 0,
            size_or_type: self.word(at + 8)?,
            body: at + TYPE,
        };
        Some((read, length))
    }

    fn structure(&self, name: &str) -> Result<Type, BtfError> {
        self.named(name, "structure", |kind| kind == Kind::Structure)
    }

    fn named(&self, name: &str, kind: &'static str, is: impl Fn(Kind) -> bool) -> Result<Type, BtfError> {
        self.named
            .get(name)
            .and_then(|&number| self.types.get(number as usize))
            .copied()
            .filter(|found| is(found.kind))
            .ok_or_else(|| BtfError::NoType {
                kind,
                name: name.to_owned(),
            })
    }

    /// The offset in bits and the type of a member, looked for in anonymous members too.
    fn member(&self, within: Type, name: &str, depth: usize) -> Option<(u32, u32)> {
        if within.kind != Kind::Structure || depth > DEPTH {
            return None;
        }
        for index in 0..within.count {
            let at = within.body + index * MEMBER;
            let (member, mut bits) = (self.word(at + 4)?, self.word(at + 8)?);
            if within.flag {
                if bits >> 24 != 0 {
                    continue;
                }
                bits &= 0x00ff_ffff;
            }
            let own = self.string(self.word(at)?)?;
            if own == name {
                return Some((bits, member));
            }
            if own.is_empty()
                && let Some((inner, member)) = self.member(self.resolved(member), name, depth + 1)
            {
                return Some((bits + inner, member));
            }
        }
        None
    }

    /// The type behind its other names and qualifiers.
    fn resolved(&self, mut number: u32) -> Type {
        for _ in 0..DEPTH {
            let found = self.types.get(number as usize).copied().unwrap_or(Type::VOID);
            if found.kind != Kind::Alias {
                return found;
            }
            number = found.size_or_type;
        }
        Type::VOID
    }

    fn word(&self, at: usize) -> Option<u32> {
        word(&self.data, at)
    }

    fn string(&self, offset: u32) -> Option<&str> {
        let rest = self.data.get(self.strings + offset as usize..)?;
        let end = rest.iter().position(|&byte| byte == 0)?;
        std::str::from_utf8(&rest[..end]).ok()
    }
}

impl Type {
    const VOID: Self = Self {
        kind: Kind::Other,
        name: 0,
        count: 0,
        flag: false,
        size_or_type: 0,
        body: 0,
    };
}

impl Kind {
    fn has_name(self) -> bool {
        matches!(self, Self::Structure | Self::Enumeration | Self::Enumeration64)
    }
}

struct Header {
    magic: u16,
    length: usize,
    /// Offset behind the header, and length.
    types: (usize, usize),
    strings: (usize, usize),
}

impl Header {
    fn read(data: &[u8]) -> Option<Self> {
        let field = |at| word(data, at).map(|word| word as usize);
        Some(Self {
            magic: u16::from_ne_bytes([*data.first()?, *data.get(1)?]),
            length: field(4)?,
            types: (field(8)?, field(12)?),
            strings: (field(16)?, field(20)?),
        })
    }

    /// Where the types are, and where the strings begin; `None` beyond the data's end.
    fn sections(&self, end: usize) -> Option<(std::ops::Range<usize>, usize)> {
        let range = |(offset, length): (usize, usize)| {
            let start = self.length.checked_add(offset)?;
            let stop = start.checked_add(length).filter(|&stop| stop <= end)?;
            Some(start..stop)
        };
        Some((range(self.types)?, range(self.strings)?.start))
    }
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests;
