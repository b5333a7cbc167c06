#!/usr/bin/perl
# Prints every query of a Grafana dashboard, one a line, as Grafana sends it to Prometheus: variables replaced, and what
# fills a variable as a query of its own.
#
#   dashboard-queries.pl DASHBOARD
use strict;
use warnings;
use JSON::PP;

open(my $in, '<', $ARGV[0]) or die "cannot open $ARGV[0]: $!\n";
my $dashboard = decode_json(do { local $/; <$in> });
my %value = ('$job' => 'audiohook-collector', '$instance' => '.+', '$__rate_interval' => '30s', '$__range' => '5m');
my @queries;
for my $variable (@{ $dashboard->{templating}{list} }) {
    next if $variable->{type} ne 'query';
    my ($series, $label) = $variable->{query}{query} =~ /^label_values\((.*), (\w+)\)$/ or die "no label_values: $variable->{name}\n";
    push @queries, "count by ($label) ($series)";
}
push @queries, map { $_->{expr} } map { @{ $_->{targets} // [] } } @{ $dashboard->{panels} };
for (@queries) {
    s/(\$\w+)/$value{$1} \/\/ die "an unknown variable: $1\n"/ge;
    print "$_\n";
}
