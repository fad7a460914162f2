<#
.SYNOPSIS
One line for each domain controller: which hook LSASS has loaded, whether the service runs, what waits, what was lost.

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

if ($ComputerName.Count -eq 0) {
    & $look $Program $Config
}
else {
    $answers = Invoke-Command -ComputerName $ComputerName -ScriptBlock $look -ArgumentList @($Program, $Config)
    $answers | Select-Object -Property '*' -ExcludeProperty @('PSComputerName', 'RunspaceId', 'PSShowComputerName')
}
