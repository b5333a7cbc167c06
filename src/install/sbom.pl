#!/usr/bin/perl
# Prints the software bill of materials (CycloneDX 1.5, JSON) of the binary for a target: all crates with their licences
# and checksums. It uses only `cargo metadata` and Cargo.lock, and the output is reproducible.
#
#   sbom.pl TARGET
use strict;
use warnings;
use JSON::PP;

my $target = shift or die "usage: sbom.pl TARGET\n";
my $cargo = $ENV{CARGO} || 'cargo';
open(my $out, '-|', $cargo, 'metadata', '--format-version=1', '--locked', "--filter-platform=$target")
    or die "cannot run cargo metadata: $!\n";
my $metadata = decode_json(do { local $/; <$out> });
close($out) or die "cannot run cargo metadata\n";

my %checksum;
{
    open(my $lock, '<', 'Cargo.lock') or die "cannot open Cargo.lock: $!\n";
    my ($name, $version);
    while (<$lock>) {
        $name = $1 if /^name = "(.*)"/;
        $version = $1 if /^version = "(.*)"/;
        $checksum{"$name $version"} = $1 if /^checksum = "(.*)"/;
    }
    close($lock);
}

my %package = map { $_->{id} => $_ } @{ $metadata->{packages} };
my %node = map { $_->{id} => $_ } @{ $metadata->{resolve}{nodes} };
my $root = $metadata->{resolve}{root};

# Normal and build dependencies. Dev-dependencies are not part of the binary.
my (%seen, %edges);
my @queue = ($root);
while (defined(my $id = shift @queue)) {
    next if $seen{$id}++;
    for my $dep (@{ $node{$id}{deps} }) {
        next unless grep { !defined $_->{kind} || $_->{kind} eq 'build' } @{ $dep->{dep_kinds} };
        push @{ $edges{$id} }, $dep->{pkg};
        push @queue, $dep->{pkg};
    }
}

sub reference { my $p = $package{ $_[0] }; return "pkg:cargo/$p->{name}\@$p->{version}"; }

sub component {
    my ($id) = @_;
    my $p = $package{$id};
    my $sum = $checksum{"$p->{name} $p->{version}"};
    my %licence = $p->{license} ? (licenses => [{ expression => $p->{license} =~ s{/}{ OR }r }]) : ();
    return {
        'type' => $id eq $root ? 'application' : 'library',
        'bom-ref' => reference($id),
        name => $p->{name},
        version => $p->{version},
        purl => reference($id),
        %licence,
        $sum ? (hashes => [{ alg => 'SHA-256', content => $sum }]) : (),
    };
}

my @ids = sort { reference($a) cmp reference($b) } grep { $_ ne $root } keys %seen;
print JSON::PP->new->canonical->pretty->encode({
    bomFormat => 'CycloneDX',
    specVersion => '1.5',
    version => 1,
    metadata => { component => component($root), properties => [{ name => 'target', value => $target }] },
    components => [map { component($_) } @ids],
    dependencies =>
        [map { { ref => reference($_), dependsOn => [sort map { reference($_) } @{ $edges{$_} || [] }] } } ($root, @ids)],
});
