#!/usr/bin/perl
# Follows every relative link of the Markdown documents in a folder, with the headings that they name, and looks for each
# file of docs/ and contrib/ that they name as `code`. Prints what leads nowhere; status 1 with any.
#
#   links.pl FOLDER
use strict;
use warnings;
use File::Find;
use File::Basename;

my $folder = shift or die "usage: links.pl FOLDER\n";
sub slurp { my ($path) = @_; open(my $in, '<', $path) or die "cannot open $path: $!\n"; local $/; return scalar <$in>; }

# The anchor of a heading, as GitHub makes it.
sub anchors {
    my ($text) = @_;
    return map { my $heading = lc s/`//gr; $heading =~ s/[^\w -]//g; $heading =~ s/ /-/g; ($heading => 1) } $text =~ /^#+ (.*)$/mg;
}

my (@documents, @findings);
my $count = 0;
find(sub { push @documents, $File::Find::name if /\.md$/ }, $folder);
die "no documents in $folder\n" unless @documents;
for my $document (sort @documents) {
    my $text = slurp($document);
    for my $link ($text =~ /\]\(([^)\s]+)\)/g) {
        next if $link =~ /^[a-z]+:/;
        my ($path, $anchor) = $link =~ /^([^#]*)(?:#(.*))?$/;
        my $target = $path eq '' ? $document : dirname($document) . "/$path";
        $count++;
        if (!-e $target) { push @findings, "$document: no $link"; next; }
        next unless defined $anchor;
        my %anchors = anchors(slurp($target));
        push @findings, "$document: no heading for $link" unless $anchors{$anchor};
    }
    for my $path ($text =~ /`((?:docs|contrib\/monitoring)\/[^`\s]+)`/g) {
        $count++;
        push @findings, "$document: no $path" unless -e "$folder/$path";
    }
}
print map { "$_\n" } @findings;
print "$folder: $count links and paths, ", scalar @findings, " of them lead nowhere\n";
exit(@findings ? 1 : 0);
