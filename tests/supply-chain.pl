#!/usr/bin/perl
# Checks the tree of dependencies against deny.toml (licences, bans, one version of each, sources), Cargo.toml (each
# direct dependency has its reason above it and asks for no default features) and the stated Rust version (no dependency
# asks for a newer one). Needs cargo and perl alone. Prints what it checked; status 1 with any finding.
use strict;
use warnings;
use JSON::PP;

my $cargo = $ENV{CARGO} || 'cargo';
my @findings;

sub slurp { my ($path) = @_; open(my $in, '<', $path) or die "cannot open $path: $!\n"; local $/; return scalar <$in>; }

# The quoted words of a list in deny.toml.
my $deny = slurp('deny.toml') =~ s/^\s*#.*$//mgr;
sub list_of {
    my ($key, $pattern) = @_;
    my ($body) = $deny =~ /^\Q$key\E = \[(.*?)^\]/ms or die "deny.toml has no list $key\n";
    return map { $_ => 1 } $body =~ /$pattern/g;
}
my %allowed = list_of('allow', qr/"([^"]+)"/);
my %banned = list_of('deny', qr/crate = "([^"]+)"/);
my %doubled = list_of('skip', qr/crate = "([^"]+)"/);
my ($targets) = $deny =~ /^targets = \[(.*?)\]/ms or die "deny.toml has no targets\n";

my (%packages, $root);
for my $target ($targets =~ /"([^"]+)"/g) {
    open(my $out, '-|', $cargo, 'metadata', '--format-version=1', '--locked', "--filter-platform=$target")
        or die "cannot run cargo metadata: $!\n";
    my $metadata = decode_json(do { local $/; <$out> });
    close($out) or die "cannot run cargo metadata\n";
    my %used = map { $_->{id} => 1 } @{ $metadata->{resolve}{nodes} };
    $packages{ $_->{id} } = $_ for grep { $used{ $_->{id} } } @{ $metadata->{packages} };
    $root = $metadata->{resolve}{root};
}
my $own = delete $packages{$root};
my @packages = sort { "$a->{name} $a->{version}" cmp "$b->{name} $b->{version}" } values %packages;

# Whether a licence expression can be met with the allowed ones: OR binds weaker than AND.
sub met {
    my ($tokens) = @_;
    my $any = all_of($tokens);
    while (@$tokens && $tokens->[0] eq 'OR') { shift @$tokens; my $next = all_of($tokens); $any ||= $next; }
    return $any;
}
sub all_of {
    my ($tokens) = @_;
    my $all = one($tokens);
    while (@$tokens && $tokens->[0] eq 'AND') { shift @$tokens; my $next = one($tokens); $all &&= $next; }
    return $all;
}
sub one {
    my ($tokens) = @_;
    my $token = shift @$tokens // '';
    if ($token eq '(') { my $inner = met($tokens); shift @$tokens; return $inner; }
    my $ok = $allowed{$token};
    if (@$tokens && $tokens->[0] eq 'WITH') { shift @$tokens; shift @$tokens; $ok = 0; }
    return $ok;
}

my %versions;
my ($stated) = ($own->{rust_version} // '') =~ /^(\d+\.\d+)/ or die "Cargo.toml states no rust-version\n";
sub minor { my ($major, $minor) = split /\./, $_[0]; return $major * 10_000 + ($minor // 0); }

for my $p (@packages) {
    my $who = "$p->{name} $p->{version}";
    push @{ $versions{ $p->{name} } }, $p->{version};
    my $licence = $p->{license} // '';
    my @tokens = ($licence =~ s{/}{ OR }gr) =~ /\(|\)|[^\s()]+/g;
    push @findings, "$who: its licence '$licence' is not among those allowed" unless @tokens && met([@tokens]);
    push @findings, "$who: banned" if $banned{ $p->{name} };
    push @findings, "$who: does not come from the registry" unless ($p->{source} // q()) =~ /^registry\+/;
    push @findings, "$who: asks for Rust $p->{rust_version}, newer than the stated $stated"
        if $p->{rust_version} && minor($p->{rust_version}) > minor($stated);
}
for my $name (sort keys %versions) {
    my @all = @{ $versions{$name} };
    push @findings, "$name: " . scalar(@all) . " versions (@all)" if @all > 1 && !$doubled{$name};
}

# Each direct dependency: a reason in the comment above it, and no default features.
my ($section, $comment) = ('', '');
for my $line (split /\n/, slurp('Cargo.toml')) {
    if ($line =~ /^\[(.*)\]/) { $section = $1; }
    elsif ($line =~ /^#/) { $comment = $line; next; }
    elsif ($section =~ /dependencies$/ && $line =~ /^([\w-]+) = (.*)/) {
        push @findings, "Cargo.toml: $1 has no reason above it" unless $comment;
        push @findings, "Cargo.toml: $1 does not say default-features = false" unless $2 =~ /default-features = false/;
    }
    $comment = '';
}

print "$_\n" for @findings;
printf "%d dependencies on %d platforms, %d findings; Rust %s or newer\n",
    scalar(@packages), scalar(my @t = $targets =~ /"([^"]+)"/g), scalar(@findings), $stated;
exit(@findings ? 1 : 0);
