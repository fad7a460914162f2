<#
.SYNOPSIS
One line for each domain controller: which hook LSASS has loaded, whether the service runs, what waits, what was lost.
One that cannot be reached has its line too.

.DESCRIPTION
Calls `passrelay producer windows status` on each controller over PowerShell remoting; changes nothing.

.EXAMPLE
.\Get-PassrelayStatus.ps1 -ComputerName (Get-ADDomainController -Filter 'IsReadOnly -eq $false').HostName | Format-Table
#>
[CmdletBinding()]
param(
    # The controllers; without, this one.
    [string[]] $ComputerName = @(),

    # The folder with python.exe and passrelay, on each of them.
    [string] $Program = 'C:\Program Files\passrelay',

    # The producer's configuration, on each of them.
    [string] $Config = 'C:\ProgramData\passrelay\producer.toml'
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

$look = {
    param([string] $Program, [string] $Config)
    # What goes wrong on one controller is its line; Windows PowerShell would take a program's first word on stderr for an error.
    $ErrorActionPreference = 'Continue'
    $python = Join-Path $Program 'python.exe'
    if (-not (Test-Path -LiteralPath $python -PathType Leaf)) {
        return [pscustomobject]@{ Computer = $env:COMPUTERNAME; Good = $false; Failures = "$python is missing" }
    }
    $said = & $python -I -m passrelay_ops producer windows status --config $Config --json 2>$null
    if (-not $said) {
        $why = "$python ended with $LASTEXITCODE and without a word: run passrelay.cmd producer windows status there"
        return [pscustomobject]@{ Computer = $env:COMPUTERNAME; Good = $false; Failures = $why }
    }
    $found = $said | Select-Object -Last 1 | ConvertFrom-Json
    $facts = if ($found.PSObject.Properties['facts']) { $found.facts } else { $null }
    [pscustomobject]@{
        Computer = $env:COMPUTERNAME
        Good = $found.ok
        Hook = if ($facts) { $facts.hook } else { $null }
        Version = if ($facts) { $facts.loaded_version } else { $null }
        SealsTo = if ($facts) { $facts.seals_to } else { $null }
        Sha256 = if ($facts) { $facts.loaded_sha256 } else { $null }
        Service = if ($facts) { $facts.service } else { $null }
        Records = if ($facts) { $facts.records } else { $null }
        Quarantined = if ($facts) { $facts.quarantined } else { $null }
        Lost = if ($facts) { $facts.lost } else { $null }
        Failures = ($found.failures | ForEach-Object { $_.detail }) -join '; '
    }
}

# The same for every line: a table has the columns of its first.
$columns = 'Computer', 'Good', 'Hook', 'Version', 'SealsTo', 'Sha256', 'Service', 'Records', 'Quarantined', 'Lost', 'Failures'
if ($ComputerName.Count -eq 0) {
    & $look $Program $Config | Select-Object -Property $columns
}
else {
    # Under Stop the first controller that cannot be reached would end this, and the others would have no line.
    $ask = @{ ComputerName = $ComputerName; ScriptBlock = $look; ArgumentList = @($Program, $Config) }
    Invoke-Command @ask -ErrorAction SilentlyContinue -ErrorVariable unreachable | Select-Object -Property $columns
    $unreachable | ForEach-Object {
        # A connection's error is about its computer; one that came over a connection says whose it is.
        $origin = $_.PSObject.Properties['OriginInfo']
        $computer = if ($origin -and $origin.Value) { $origin.Value.PSComputerName } else { $_.TargetObject }
        [pscustomobject]@{ Computer = $computer; Good = $false; Failures = "$_" }
    } | Select-Object -Property $columns
}
