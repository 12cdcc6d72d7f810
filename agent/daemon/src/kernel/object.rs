//! What the loaders of the observers' objects share.

use aya::Ebpf;
use aya::EbpfError;
use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray};
use aya::programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, Program, ProgramError};
use sabot_abi::OwnerKey;

use super::btf::BtfError;
use super::cgroups::{self, CgroupError};
use super::netns::{self, NetnsError};
use super::verified;

#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error(transparent)]
    Btf(#[from] BtfError),
    #[error("whose traffic it is can be told from Linux 5.14 on: {0}")]
    Cookies(#[source] NetnsError),
    #[error("no cgroup is there to attach to: {0}")]
    Cgroups(#[source] CgroupError),
    #[error("the {object} object can't be loaded: {source}")]
    Load {
        object: &'static str,
        source: Box<EbpfError>,
    },
    #[error("the {object} object has no map {map}")]
    NoMap { object: &'static str, map: &'static str },
    #[error("map {map} of the {object} object: {source}")]
    Map {
        object: &'static str,
        map: &'static str,
        source: Box<MapError>,
    },
    #[error("the {object} object has no program {program}")]
    NoProgram {
        object: &'static str,
        program: &'static str,
    },
    #[error("program {program} of the {object} object: {source}")]
    Program {
        object: &'static str,
        program: &'static str,
        source: Box<ProgramError>,
    },
}

/// An object by its name, for its errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named(pub(super) &'static str);

impl Named {
    pub(super) fn load(self, source: EbpfError) -> ObjectError {
        ObjectError::Load {
            object: self.0,
            source: Box::new(source),
        }
    }

    pub(super) fn map(self, map: &'static str) -> impl FnOnce(MapError) -> ObjectError {
        move |source| ObjectError::Map {
            object: self.0,
            map,
            source: Box::new(source),
        }
    }

    pub(super) fn program(self, program: &'static str, source: ProgramError) -> ObjectError {
        ObjectError::Program {
            object: self.0,
            program,
            source: Box::new(source),
        }
    }

    /// Takes a map out of the loaded object.
    pub(super) fn take<M: TryFrom<Map, Error = MapError>>(
        self,
        object: &mut Ebpf,
        map: &'static str,
    ) -> Result<M, ObjectError> {
        object
            .take_map(map)
            .ok_or(ObjectError::NoMap { object: self.0, map })?
            .try_into()
            .map_err(self.map(map))
    }

    /// A program of the loaded object, of the kind that the caller says.
    pub(super) fn get<'a, P>(
        self,
        object: &'a mut Ebpf,
        program: &'static str,
    ) -> Result<&'a mut P, ObjectError>
    where
        &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
    {
        object
            .program_mut(program)
            .ok_or(ObjectError::NoProgram {
                object: self.0,
                program,
            })?
            .try_into()
            .map_err(|source| self.program(program, source))
    }

    /// Loads programs and attaches them to the sockets of the whole machine, in this order, as long as the object lives.
    pub(super) fn attach_to_sockets(
        self,
        object: &mut Ebpf,
        programs: [(&'static str, CgroupSkbAttachType); 2],
    ) -> Result<(), ObjectError> {
        let root = cgroups::root().map_err(ObjectError::Cgroups)?;
        for (name, direction) in programs {
            let program: &mut CgroupSkb = self.get(object, name)?;
            let failed = |source| self.program(name, source);
            verified::load(name, program, CgroupSkb::load, CgroupSkb::info).map_err(failed)?;
            // A link always lets others attach too.
            program
                .attach(&root, direction, CgroupAttachMode::Single)
                .map_err(failed)?;
        }
        Ok(())
    }

    /// The sum over the CPUs of each number of a map.
    pub(super) fn sums<const COUNT: usize>(
        self,
        numbers: &PerCpuArray<MapData, u64>,
        map: &'static str,
    ) -> Result<[u64; COUNT], ObjectError> {
        let mut sums = [0; COUNT];
        for (index, sum) in (0u32..).zip(&mut sums) {
            *sum = numbers.get(&index, 0).map_err(self.map(map))?.iter().sum();
        }
        Ok(sums)
    }

    /// That a key was gone already is as good as its removal.
    pub(super) fn removed(self, map: &'static str, result: Result<(), MapError>) -> Result<(), ObjectError> {
        self.found(map, result).map(|_| ())
    }

    /// `None` for a key that isn't there.
    pub(super) fn found<T>(
        self,
        map: &'static str,
        result: Result<T, MapError>,
    ) -> Result<Option<T>, ObjectError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {
                Ok(None)
            }
            Err(source) => Err(self.map(map)(source)),
        }
    }
}

/// Programs and daemon know an owner by the cookie of its network namespace; without those everything is nobody's.
pub(super) fn require_cookies() -> Result<(), ObjectError> {
    netns::own_cookie().map(drop).map_err(ObjectError::Cookies)
}

/// An object's own table of the owners that live.
pub(super) struct OwnerTable {
    object: Named,
    table: HashMap<MapData, OwnerKey, u32>,
}

impl OwnerTable {
    const MAP: &'static str = "OWNERS";

    pub(super) fn take(named: Named, object: &mut Ebpf) -> Result<Self, ObjectError> {
        Ok(Self {
            object: named,
            table: named.take(object, Self::MAP)?,
        })
    }

    /// Makes the table say these owners, and no others.
    pub(super) fn set(&mut self, owners: &[(OwnerKey, u32)]) -> Result<(), ObjectError> {
        let failed = |source| self.object.map(Self::MAP)(source);
        let known: std::collections::HashMap<OwnerKey, u32> =
            self.table.iter().collect::<Result<_, _>>().map_err(failed)?;
        let wanted: std::collections::HashMap<OwnerKey, u32> = owners.iter().copied().collect();
        for key in known.keys().filter(|key| !wanted.contains_key(key)) {
            let result = self.table.remove(key);
            self.object.removed(Self::MAP, result)?;
        }
        for (key, owner) in wanted {
            if known.get(&key) != Some(&owner) {
                self.table
                    .insert(key, owner, 0)
                    .map_err(self.object.map(Self::MAP))?;
            }
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.table.keys().filter_map(Result::ok).count()
    }
}
