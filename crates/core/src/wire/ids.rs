//! Ids and numbers on the wire: byte strings and plain integers.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::ids::{
    BucketId, ChangesetId, ColumnNumber, Cursor, DeviceId, Lease, TableNumber, Tag, Timestamp,
    Version,
};

macro_rules! bytes_on_the_wire {
    ($($name:ident),*) => {$(
        impl<C> Encode<C> for $name {
            fn encode<W: encode::Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }
        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
                let at = d.position();
                Self::from_slice(d.bytes()?)
                    .ok_or_else(|| decode::Error::message("wrong length of an id").at(at))
            }
        }
    )*};
}
bytes_on_the_wire!(ChangesetId, DeviceId, Lease, BucketId, Tag);

macro_rules! number_on_the_wire {
    ($($name:ident $method:ident),*) => {$(
        impl<C> Encode<C> for $name {
            fn encode<W: encode::Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), encode::Error<W::Error>> {
                e.$method(self.0)?.ok()
            }
        }
        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
                Ok(Self(d.$method()?))
            }
        }
    )*};
}
number_on_the_wire!(Timestamp u64, TableNumber u32, ColumnNumber u32);

impl<C> Encode<C> for Version {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.u64(self.0)?.ok()
    }
}
impl<'b, C> Decode<'b, C> for Version {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        let version = Self(d.u64()?);
        if version.0 >= Self::LIMIT {
            return Err(decode::Error::message("a version is below 2^53").at(at));
        }
        Ok(version)
    }
}

impl<C> Encode<C> for Cursor {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        c: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.array(3)?;
        self.version.encode(e, c)?;
        self.tag.encode(e, c)?;
        self.mac.encode(e, c)
    }
}
impl<'b, C> Decode<'b, C> for Cursor {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        if d.array()? != Some(3) {
            return Err(decode::Error::message("a cursor has three parts").at(at));
        }
        Ok(Self {
            version: Version::decode(d, c)?,
            tag: Tag::decode(d, c)?,
            mac: Tag::decode(d, c)?,
        })
    }
}
