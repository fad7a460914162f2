<#
.SYNOPSIS
Takes passrelay away from this Windows domain controller. Keys, spool and records stay unless -RemoveData.

.DESCRIPTION
Calls `passrelay producer windows remove`. LSASS keeps the hook until the controller restarts: run this once before and once
after the restart. It says what still waits; -RemoveData is refused as long as anything does. -WhatIf changes nothing.

Exit codes: 0 done, 1 internal error, 2 usage or configuration, 3 something is unavailable, 4 refused for safety.
#>
[CmdletBinding(SupportsShouldProcess, ConfirmImpact = 'High')]
param(
    # The folder with python.exe and passrelay.
    [string] $Program = (Join-Path $env:ProgramFiles 'passrelay'),

    # The producer's configuration.
    [string] $Config = (Join-Path $env:ProgramData 'passrelay\producer.toml'),

    # Also keys, spool, records and log.
    [switch] $RemoveData,

    # Asks nothing and writes one JSON document: for many controllers.
    [switch] $Silent
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

function Exit-Refused([int] $Code, [string] $Why) {
    if ($Silent) {
        # As the program's own document: over remoting nothing else comes back, no exit code either.
        $failures = @(@{ check = 'windows'; subject = ''; detail = $Why })
        [ordered]@{ schema = 'passrelay.windows/1'; ok = $false; failures = $failures; done = $false } | ConvertTo-Json -Compress -Depth 4
    }
    else {
        $Host.UI.WriteErrorLine("passrelay: $Why")
    }
    exit $Code
}

$principal = [Security.Principal.WindowsPrincipal]::new([Security.Principal.WindowsIdentity]::GetCurrent())
if (-not $principal.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)) {
    Exit-Refused 4 'start PowerShell as administrator'
}
if (-not [Environment]::Is64BitProcess) {
    Exit-Refused 4 'this PowerShell is a 32-bit one: start the 64-bit one'
}
$python = Join-Path $Program 'python.exe'
if (-not (Test-Path -LiteralPath $python -PathType Leaf)) {
    Exit-Refused 2 "$python is missing: name the program's folder with -Program"
}

$arguments = @('-I', '-m', 'passrelay_ops', 'producer', 'windows', 'remove', '--config', $Config)
if ($RemoveData) { $arguments += '--remove-data' }

# Windows PowerShell takes what a program says on stderr for an error, over remoting also unredirected, and would end here.
$ErrorActionPreference = 'Continue'
if ($Silent) {
    $arguments += '--json'
    if (-not $WhatIfPreference) { $arguments += '--yes' }
    # Whatever does not even start is a failure. The document has the program's failures too.
    $said, $code = $null, 1
    $said = & $python @arguments 2>$null
    $code = $LASTEXITCODE
    if (-not $said) { Exit-Refused ([Math]::Max($code, 1)) "$python ended with $code and without a word: run this without -Silent" }
    $said
    exit $code
}
# The plan; without --yes nothing is done.
& $python @arguments
if ($LASTEXITCODE -ne 0 -or $WhatIfPreference) { exit $LASTEXITCODE }
if ($PSCmdlet.ShouldProcess($env:COMPUTERNAME, 'Carry out these steps')) {
    & $python @arguments --yes
}
exit $LASTEXITCODE
